"""`make run`, `make test` and `make check`: the embedded services of a fresh machine. Production imports nothing of this.

bootstrap      any Python: checks the machine, makes .venv, installs the pinned packages, goes on in .venv
__main__       `run`, `test`, `check`, which are in `running`, `testing` and `checking`
supervisor     starts, watches, restarts and stops the programs below
postgresql     PostgreSQL with pgvector          valkey       a Redis
demo_model     a small chat model                webserver    gunicorn
external       stores that the environment names instead
background     the embedder and the worker of long-term memory
watchdog       stops them all should the supervisor be killed
folder         DATA_DIR, where they keep things  accounts     whose rights they run with
processes      programs and how they end         chromium     the browser of the tests
prepare        migrations and set-up             refusal      what cannot work, in one sentence
"""
