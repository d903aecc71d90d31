# Everything is done by chatbot_site/local/bootstrap.py with the standard library; this only names the doors.
#   make run                   the server on http://localhost:8000 (PORT=… chooses another)
#   make test ARGS="-k chat"   the tests
#   make check                 linters, types, layers, migrations, schema, deployment checks
#   make lock                  pin the newest versions that requirements*.in allow (needs uv)
#   make clean                 remove what can be made again; the data in .data/ stays
# The first that starts: a version manager's python3 may be an empty shell for a version that is not installed.
PYTHON ?= $(shell for python in python3 /usr/bin/python3 /usr/local/bin/python3; do $$python -c "" 2>/dev/null && echo $$python && break; done)
UV ?= uv
COMPILE = $(UV) pip compile --universal --generate-hashes --python-version 3.11 --no-header --quiet --no-emit-index-url --no-emit-find-links

.PHONY: run test check lock clean

run test check:
	@command -v "$(PYTHON)" >/dev/null || { echo "No python3 was found. Install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv), then run 'make $@' again." >&2; exit 1; }
	@exec $(PYTHON) chatbot_site/local/bootstrap.py $@ $(ARGS)

lock:
	@command -v $(UV) >/dev/null || { echo "uv was not found. Install it (pipx install uv), then run 'make lock' again." >&2; exit 1; }
	$(COMPILE) --upgrade requirements.in -o requirements.txt
	$(COMPILE) --upgrade requirements-test.in -o requirements-test.txt
	$(COMPILE) --upgrade --no-deps requirements-local.in -o requirements-local.txt

clean:
	rm -rf .venv staticfiles test-results .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Removed what can be made again. Databases and secrets in .data/ were kept."
