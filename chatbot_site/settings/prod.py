"""Everything but development: no defaults for secrets and addresses, HTTPS, JSON logs."""

from . import base
from .base import *  # noqa: F403 - Django settings are a flat module
from .environment import env_file, provider_keys, read_environment

ENVIRONMENT = read_environment(required=("secret_key", "database_url", "redis_url", "allowed_hosts"), files=(env_file(),))
globals().update(base.settings_from(ENVIRONMENT))
PROVIDER_KEYS = provider_keys(env_file())

DEBUG = False
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = ENVIRONMENT.secure_ssl_redirect
SECURE_REDIRECT_EXEMPT = [r"^health", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
STORAGES = {**base.STORAGES, "staticfiles": {"BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"}}
