"""Development and `make run`: readable logs, plain HTTP, a key that is made on the spot."""

from django.core.management.utils import get_random_secret_key

from observability.logs import logging_settings

from . import base
from .base import *  # noqa: F403 - Django settings are a flat module
from .environment import env_file, generated_file, provider_keys, read_environment

ENVIRONMENT = read_environment(files=(generated_file(), env_file()))
globals().update(base.settings_from(ENVIRONMENT))
PROVIDER_KEYS = provider_keys(env_file())

DEBUG = False
METRICS_NEED_TOKEN = False
SECRET_KEY = ENVIRONMENT.secret_key or get_random_secret_key()
ALLOWED_HOSTS = ENVIRONMENT.allowed_hosts or ["localhost", "127.0.0.1", "[::1]"]
ENVIRONMENT_NAME = ENVIRONMENT.environment_name or "development"
LOGGING = logging_settings(level=ENVIRONMENT.log_level, json=False)
# Serve files straight from their folders: no collectstatic before the first run.
SERVESTATIC_USE_FINDERS = True
