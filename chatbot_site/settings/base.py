"""What all environments share. Values that differ between installations come from `environment.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from csp.constants import NONCE, NONE, SELF
from django.templatetags.static import static
from django.urls import reverse_lazy

from chatbot_site.capacity import web_workers
from observability.logs import logging_settings

from .environment import PROJECT_DIR, Environment

ROOT_URLCONF = "chatbot_site.urls"
ASGI_APPLICATION = "chatbot_site.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en"
USE_I18N = True

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework_api_key",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "observability",
    "memory",
    "agents",
    "chatbot_site",
]

# Pages: the admin, the chat page, the API's documentation.
MIDDLEWARE = [
    "chatbot_site.middleware.RequestIdMiddleware",
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "chatbot_site.middleware.AdminPolicyMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "chatbot_site.middleware.PageMetricsMiddleware",
]
# The API knows no cookies: its path runs these only, all of them async (docs/adr/0002-async-path.md).
API_MIDDLEWARE = [
    "chatbot_site.middleware.ApiSecurityMiddleware",
]
PROBES = ("/health", "/metrics")  # called by address and every few seconds, by the host's own machines
API_PREFIXES = ("/api/", *PROBES)

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PROJECT_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    }
]
STATIC_URL = "/static/"
STATIC_ROOT = PROJECT_DIR / "staticfiles"
STATICFILES_DIRS = [PROJECT_DIR / "templates" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
LOGIN_URL = "admin:login"
# Where a sign-in leads whose ?next= is not an address of this site.
LOGIN_REDIRECT_URL = "admin:index"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_THROTTLE_CLASSES": [],
    "DEFAULT_PARSER_CLASSES": ["agents.rest.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "chatbot_site.problems.answer_drf_exception",
    "URL_FORMAT_OVERRIDE": None,  # one way to choose the representation: the Accept header
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Chat API",
    "DESCRIPTION": "Talk to the agents of this server. Errors are problem documents (RFC 9457).",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api",
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token for one end user."},
        }
    },
}

# The API and the chat page run under the strict policy; the admin's own is looser, because Alpine needs 'unsafe-eval'.
CONTENT_SECURITY_POLICY: dict[str, Any] = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    },
}
ADMIN_CONTENT_SECURITY_POLICY: dict[str, Any] = {
    **CONTENT_SECURITY_POLICY["DIRECTIVES"],
    "script-src": [SELF, NONCE, "'unsafe-eval'"],
    "style-src": [SELF, "'unsafe-inline'"],
}

X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "chatbot_site.problems.answer_csrf_failure"


def _sidebar(title: str, icon: str, model: str, permission: str, **more: str) -> dict[str, Any]:
    link = reverse_lazy(f"admin:{model}_changelist")
    return {"title": title, "icon": icon, "link": link, "permission": f"agents.admin.permissions.{permission}", **more}


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Chatbots",
    "SITE_HEADER": "Chatbots",
    "SITE_URL": "/",
    "SITE_SYMBOL": "forum",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("chat/icon.svg")}],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "agents.admin.overview.environment_label",
    "DASHBOARD_CALLBACK": "agents.admin.overview.add_overview",
    "GLOBAL_CALLBACK": "agents.admin.overview.demo_banner",
    "STYLES": [lambda request: static("admin_agents/pages.css")],
    # Blue: contrast of 4.5 to 1 on white and on the dark ground.
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
    },
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "title": "Chatbots",
                "items": [
                    {"title": "Overview", "icon": "monitoring", "link": reverse_lazy("admin:index")},
                    _sidebar("Agents", "smart_toy", "agents_agent", "may_view_agents"),
                    _sidebar("Providers", "dns", "agents_provider", "may_view_providers"),
                    _sidebar("API keys", "key", "agents_apikey", "may_view_keys"),
                    _sidebar("Key owners", "domain", "agents_keyowner", "may_view_key_owners"),
                ],
            },
            {
                "title": "Cost",
                "items": [
                    {
                        "title": "Cost overview",
                        "icon": "payments",
                        "link": reverse_lazy("cost"),
                        "permission": "agents.admin.permissions.may_view_cost",
                    },
                    _sidebar("Budgets", "savings", "observability_budget", "may_view_budgets"),
                    _sidebar("Limits", "speed", "observability_limit", "may_view_limits"),
                    _sidebar("Prices", "sell", "observability_modelprice", "may_view_prices"),
                    _sidebar("Ledger", "receipt", "observability_attempt", "may_view_ledger"),
                ],
            },
            {
                "title": "Alerts",
                "items": [
                    _sidebar("Incidents", "notifications_active", "observability_incident", "may_view_incidents"),
                    _sidebar("Alert rules", "rule", "observability_alertrule", "may_view_alert_rules"),
                    _sidebar("Alert targets", "campaign", "observability_alerttarget", "may_view_alert_targets"),
                ],
            },
            {
                "title": "What was said",
                "items": [
                    _sidebar("Conversations", "forum", "memory_conversation", "may_view_conversations"),
                    _sidebar("Turns", "chat_bubble", "memory_turn", "may_view_turns"),
                    _sidebar("Upkeep", "auto_delete", "memory_upkeeprun", "may_view_upkeep"),
                ],
            },
            {
                "title": "What is remembered",
                "items": [
                    _sidebar("People", "group", "memory_subject", "may_view_memories", active="memory.admin.pages.is_about_people"),
                    _sidebar(
                        "Shared knowledge",
                        "library_books",
                        "memory_memoryowner",
                        "may_view_knowledge",
                        active="memory.admin.pages.is_about_knowledge",
                    ),
                    _sidebar("Erasures", "receipt_long", "memory_erasure", "may_view_erasures"),
                ],
            },
            {
                "title": "System",
                "items": [
                    _sidebar("Doctor", "stethoscope", "observability_doctorreport", "may_view_doctor"),
                    _sidebar("Log level", "receipt", "observability_loglevel", "may_view_log_level"),
                ],
            },
            {
                "title": "Who signs in here",
                "items": [
                    _sidebar("Users", "person", "auth_user", "may_view_people"),
                    _sidebar("Groups", "badge", "auth_group", "may_view_groups"),
                ],
            },
        ],
    },
}


def settings_from(environment: Environment) -> dict[str, Any]:
    """Return the Django settings that `environment` decides."""
    return {
        "SECRET_KEY": environment.secret_key,
        "SECRET_KEY_FALLBACKS": environment.secret_key_fallbacks,
        "ALLOWED_HOSTS": environment.allowed_hosts,
        "CSRF_TRUSTED_ORIGINS": environment.csrf_trusted_origins,
        "DATABASES": _databases(environment),
        "DIRECT_DATABASE_URL": environment.direct_database_url,
        "CACHES": _caches(environment),
        "REDIS_URL": environment.redis_url,
        "TRUSTED_PROXIES": environment.trusted_proxies,
        "CLIENT_ADDRESS_HEADER": environment.client_address_header,
        "WEB_CONCURRENCY": environment.web_concurrency or web_workers(),
        "ANONYMOUS_REQUESTS_PER_MINUTE": environment.anonymous_requests_per_minute,
        "API_REQUESTS_PER_MINUTE": environment.api_requests_per_minute,
        "SIGN_INS_PER_MINUTE": environment.sign_ins_per_minute,
        "RATELIMIT_USE_CACHE": "limits",
        "RATELIMIT_FAIL_OPEN": True,
        "ALERT_WEBHOOK_URL": environment.alert_webhook_url,
        "EMAIL_URL": environment.email_url,
        "METRICS_TOKEN": environment.metrics_token,
        "METRICS_NEED_TOKEN": True,
        "WORKER_METRICS_PORT": environment.worker_metrics_port,
        "OUTBOUND_ALLOWED_HOSTS": _allowed_outbound(environment),
        "OPENAI_API_KEY": environment.openai_api_key,
        "DEMO_MODEL_URL": environment.demo_model_url,
        "OPENAI_BASE_URL": environment.openai_base_url,
        "DEFAULT_CHAT_MODEL": environment.default_chat_model,
        "EMBEDDING_BASE_URL": environment.embedding_base_url,
        "EMBEDDING_API_KEY": environment.embedding_api_key,
        "EMBEDDING_MODEL": environment.embedding_model,
        "EMBEDDING_DIMENSIONS": environment.embedding_dimensions,
        "EMBEDDING_NEXT_BASE_URL": environment.embedding_next_base_url,
        "EMBEDDING_NEXT_API_KEY": environment.embedding_next_api_key,
        "EMBEDDING_NEXT_MODEL": environment.embedding_next_model,
        "EMBEDDING_NEXT_DIMENSIONS": environment.embedding_next_dimensions,
        "EMBEDDING_CACHE_S": environment.embedding_cache_s,
        "EMBEDDER_URL": environment.embedder_url,
        "MEMORY_DEADLINE_MS": environment.memory_deadline_ms,
        "BREAKER_FAILURES": environment.breaker_failures,
        "BREAKER_WAIT_S": environment.breaker_wait_s,
        "CHAT_MAX_MESSAGE_CHARS": environment.chat_max_message_chars,
        "CHAT_MAX_REPLY_CHARS": environment.chat_max_reply_chars,
        "CHAT_MAX_CONCURRENT_TURNS": environment.chat_max_concurrent_turns,
        "CLASSIFIER_DEADLINE_MS": environment.classifier_deadline_ms,
        "CHAT_HISTORY_TURNS": environment.chat_history_turns,
        "MAX_BODY_BYTES": environment.max_body_bytes,
        "DATA_UPLOAD_MAX_MEMORY_SIZE": environment.max_body_bytes,
        "TIKTOKEN_CACHE_DIR": Path(environment.tiktoken_cache_dir or environment.data_dir / "tokenizer"),
        "ENVIRONMENT_NAME": environment.environment_name,
        "RELEASE": environment.release,
        "SENTRY_DSN": environment.sentry_dsn,
        "OTEL_EXPORTER_OTLP_ENDPOINT": environment.otel_exporter_otlp_endpoint,
        "DATABASE_STAMP": environment.environment_name,  # never a default of ours, such as development's
        "LOG_LEVEL": environment.log_level,
        "LOGGING": logging_settings(level=environment.log_level, json=True),
    }


def _databases(environment: Environment) -> dict[str, Any]:
    if not environment.database_url:
        return {}
    database: dict[str, Any] = {**dj_database_url.parse(environment.database_url), "CONN_MAX_AGE": 0}
    # A cursor that outlives its transaction would be another connection's behind a transaction pooler.
    database["DISABLE_SERVER_SIDE_CURSORS"] = True
    database["OPTIONS"] = database.get("OPTIONS", {}) | {
        # A generic plan is a hundred times slower for an owner of many rows: plan each statement for its values.
        "prepare_threshold": None,
        "connect_timeout": 3,
        "pool": {"min_size": 1, "max_size": environment.database_pool_size, "timeout": 2, "max_idle": 120, "reconnect_timeout": 10},
    }
    return {"default": database}


def _caches(environment: Environment) -> dict[str, Any]:
    """Return `default`, the cache of packages that use Django's, `embeddings`, in which texts' vectors are kept, and `limits`,
    in which django-ratelimit counts.

    All processes share them, and what is read from Redis is only ever data (JSON), never a pickle. A Redis that is away is an
    empty cache: for `default` django-redis sees to that; who uses the others does so itself, to leave it alone for a while.
    """

    def cache(prefix: str, *, timeout_s: float, **options: Any) -> dict[str, Any]:
        options |= {
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            "SOCKET_CONNECT_TIMEOUT": timeout_s,
            "SOCKET_TIMEOUT": timeout_s,
        }
        backend = "django_redis.cache.RedisCache"
        return {"BACKEND": backend, "LOCATION": environment.redis_url, "KEY_PREFIX": prefix, "OPTIONS": options}

    return {
        "default": cache("chatbot", timeout_s=0.2, IGNORE_EXCEPTIONS=True),
        "embeddings": cache("chatbot:embedding", timeout_s=1.0, IGNORE_EXCEPTIONS=False),
        "limits": cache("chatbot:limit", timeout_s=0.2, IGNORE_EXCEPTIONS=False),
    }


def _allowed_outbound(environment: Environment) -> list[str]:
    # What the operator names in the environment has the same trust as OUTBOUND_ALLOWED_HOSTS.
    named = (
        environment.openai_base_url,
        environment.demo_model_url,
        environment.embedding_base_url,
        environment.embedding_next_base_url,
        environment.embedder_url,
        environment.alert_webhook_url,
        environment.email_url,
    )
    return sorted({*environment.outbound_allowed_hosts, *(urlsplit(url).netloc.rpartition("@")[2] for url in named if url)})
