"""This project on Railway: the web server, the worker, PostgreSQL with pgvector, and Redis.

`railway config plan` shows what would change in the linked environment, `railway config apply` changes it (docs/hosting.md).
It is the same for every environment, production, staging and those of pull requests: they differ in their variables only. Databases
are named by reference, which means the environment's own; secrets stand in the environment's shared variables, never here.
"""

from pathlib import Path

from railway_sdk import create_railway_context, database, define_railway, preserve, project, redis, service

PROCFILE = dict(
    line.split(": ", 1) for line in (Path(__file__).resolve().parent.parent / "Procfile").read_text(encoding="utf-8").splitlines()
)
# Railway builds with a Dockerfile where it finds one at the top; this project's stands elsewhere, for those who have Docker.
BUILD = {
    "builder": "RAILPACK",
    "buildCommand": "python manage.py collectstatic --noinput --settings chatbot_site.settings.prod"
    " && python manage.py tokenizer_ranks --settings chatbot_site.settings.prod",
}
# Asked to stop, a process ends what it is at within 25 s; Railway's own default would kill it at once.
DEPLOY = {"drainingSeconds": 30, "restartPolicyType": "ON_FAILURE", "restartPolicyMaxRetries": 10}
# Without these nothing starts, or nothing answers: shared variables of each environment.
SHARED = ("SECRET_KEY", "OPENAI_API_KEY", "DEFAULT_CHAT_MODEL")
# Everything else that may be set on a service: what stands in Railway stays. docs/settings.md says what each is for.
KEPT = (
    "ALERT_WEBHOOK_URL",
    "ANONYMOUS_REQUESTS_PER_MINUTE",
    "API_REQUESTS_PER_MINUTE",
    "BREAKER_FAILURES",
    "BREAKER_WAIT_S",
    "CHAT_HISTORY_TURNS",
    "CHAT_MAX_CONCURRENT_TURNS",
    "CHAT_MAX_MESSAGE_CHARS",
    "CHAT_MAX_REPLY_CHARS",
    "CLASSIFIER_DEADLINE_MS",
    "DATABASE_POOL_SIZE",
    "DIRECT_DATABASE_URL",
    "EMAIL_URL",
    "EMBEDDING_API_KEY",
    "EMBEDDING_BASE_URL",
    "EMBEDDING_CACHE_S",
    "EMBEDDING_DIMENSIONS",
    "EMBEDDING_MODEL",
    "EMBEDDING_NEXT_API_KEY",
    "EMBEDDING_NEXT_BASE_URL",
    "EMBEDDING_NEXT_DIMENSIONS",
    "EMBEDDING_NEXT_MODEL",
    "LOG_LEVEL",
    "MAX_BODY_BYTES",
    "MEMORY_DEADLINE_MS",
    "METRICS_TOKEN",
    "OPENAI_BASE_URL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OUTBOUND_ALLOWED_HOSTS",
    "SECRET_KEY_FALLBACKS",
    "SECURE_SSL_REDIRECT",
    "SENTRY_DSN",
    "SIGN_INS_PER_MINUTE",
    "WEB_CONCURRENCY",
    "WORKER_METRICS_PORT",
)
# A domain of your own is added here: "bots.example.com,${{RAILWAY_PUBLIC_DOMAIN}},healthcheck.railway.app"
HOSTS = "${{RAILWAY_PUBLIC_DOMAIN}},healthcheck.railway.app"


@define_railway
def main(ctx=None):
    """Return the project. `ctx` is what the command line knows of the environment; nothing here depends on it."""
    shared = create_railway_context(ctx).shared
    # The standard image has no pgvector.
    db = database("Postgres", "postgres", image="pgvector/pgvector:pg17", defaultMountPath="/var/lib/postgresql/data")
    cache = redis("Redis")
    common = {
        **{name: preserve() for name in KEPT},
        **{name: shared[name] for name in SHARED},
        "DATABASE_URL": db.env.DATABASE_URL,
        "REDIS_URL": cache.env.REDIS_URL,
        "ALLOWED_HOSTS": HOSTS,
        # RAILWAY_ENVIRONMENT_NAME, which Railway sets, names the environment.
        "RELEASE": "${{RAILWAY_GIT_COMMIT_SHA}}",
    }
    web = service(
        "web",
        build=BUILD,
        start=PROCFILE["web"],
        preDeploy=PROCFILE["release"],
        healthcheck="/health/ready",
        healthcheckTimeout=120,
        deploy=DEPLOY,
        env={
            **common,
            "CSRF_TRUSTED_ORIGINS": "https://${{RAILWAY_PUBLIC_DOMAIN}}",
            # Railway's proxies, and the header in which they tell the caller's address.
            "TRUSTED_PROXIES": "100.64.0.0/10",
            "CLIENT_ADDRESS_HEADER": "X-Real-IP",
        },
    )
    # It may be deployed before the web server: whoever comes first migrates, the other waits.
    worker = service("worker", build=BUILD, start=PROCFILE["worker"], preDeploy=PROCFILE["release"], deploy=DEPLOY, env=common)
    return project("chatbots", resources=[db, cache, web, worker])
