"""`dev` for `make run`, `test` for `make test`, `prod` for everything else; each starts from `base`."""
