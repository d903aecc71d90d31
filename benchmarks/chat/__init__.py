"""How fast the chat API is, what it adds to a call of the model, and what it costs.

    python -m benchmarks.chat                 every scenario, under 8 minutes
    python -m benchmarks.chat --quick         the same with fewer and shorter rounds, under a minute
    python -m benchmarks.chat --peer 'other=http://127.0.0.1:4000/v1,bench,sk-1' --upstream-port 9901

Four parties, each a process: `upstream` (an OpenAI-compatible API that answers from prebuilt bytes), the server under test
(`server`), peers if any are named, and `load` (raw HTTP clients). `runner` drives every party in turns, `storage` checks that
what was acknowledged is stored, `report` prints.
"""
