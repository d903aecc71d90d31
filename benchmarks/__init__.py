"""Measurements of the running server. `python -m benchmarks.chat --help` tells more, and so does docs/benchmarks.md."""
