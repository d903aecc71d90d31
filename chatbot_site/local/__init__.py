"""`make run`, `make test` and `make check`: the embedded services of a fresh machine. Production imports nothing of this.

bootstrap      any Python: checks the machine, makes .venv, installs the pinned packages, goes on in .venv
__main__       `run`, `test`, `check`
supervisor     starts, watches, restarts and stops the programs below
postgresql     PostgreSQL with pgvector          valkey       a Redis
demo_model     a small chat model                webserver    gunicorn
background     the embedder and the worker of long-term memory
watchdog       stops them all should the supervisor be killed
"""
