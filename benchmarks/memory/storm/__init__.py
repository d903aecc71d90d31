"""A storm over memory: many people, agents and sessions at once, workers that die, corrections and erasures; and a model of it all.

    embedder   an embedder of a few microseconds a text, over the real wire
    model      what ought to be remembered
    world      the operations, each done to the server's code and to the model, and what must hold after them
    running    a hundred thousand of them, in several lanes at once

`tests/promises/test_memory_isolation.py` lets hypothesis choose the operations instead.
"""
