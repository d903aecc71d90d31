"""`make test`: real PostgreSQL and Redis, quick password hashing."""

import os

from . import base
from .base import *  # noqa: F403 - Django settings are a flat module
from .environment import read_environment

ENVIRONMENT = read_environment(required=("database_url", "redis_url"))
globals().update(base.settings_from(ENVIRONMENT))
PROVIDER_KEYS: dict[str, str] = {}

DEBUG = False
SECRET_KEY = "only-for-tests-only-for-tests-only-for-tests-only-for-tests"  # noqa: S105 - guards nothing
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", "testserver"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
SERVESTATIC_USE_FINDERS = True
WEB_CONCURRENCY = ENVIRONMENT.web_concurrency or 1  # a process's share of a limit must not depend on the machine
EMBEDDING_CACHE_S = 0  # what an embedder was asked is counted; tests of the cache switch it on
for _limit in ("ANONYMOUS_REQUESTS_PER_MINUTE", "API_REQUESTS_PER_MINUTE", "SIGN_INS_PER_MINUTE"):
    if _limit not in os.environ:
        globals()[_limit] = 0  # all tests come from one address
# A Redis that a busy machine holds up is not gone. Tests of one that hangs ask for the timeouts that are promised.
if "PROMISED_REDIS_TIMEOUTS" not in os.environ:
    for _cache in globals()["CACHES"].values():
        _cache["OPTIONS"] |= {"SOCKET_CONNECT_TIMEOUT": 10, "SOCKET_TIMEOUT": 10}
# Nor is PostgreSQL. Tests of how long one that is gone is waited for ask for the wait that is promised.
if "PROMISED_DATABASE_TIMEOUTS" not in os.environ:
    globals()["DATABASES"]["default"]["OPTIONS"]["pool"]["timeout"] = 9
