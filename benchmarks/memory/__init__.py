"""How well long-term memory recalls what was said, and how quickly however much there is.

    python -m benchmarks.memory --file PATH [--json FILE]
    python -m benchmarks.memory --scale [--rows 1000000] [--json FILE]

With `--file`, the file's conversations are written to a database of their own by the server's own code, embedded by the built-in
embedder, and its questions are put to the server's own recall. `conversations` reads the file, `storage` sees to the database,
`measuring` fills it and asks, `baselines` scores the same lines in the usual ways, `figures` computes what `__main__` prints.

With `--scale`, turns that nobody said (`generated`) are stored by the server's own code (`filling`), and `scale` measures on the way.
docs/benchmarks.md explains the figures.
"""
