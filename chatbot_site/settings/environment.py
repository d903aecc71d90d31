"""Every setting of this server, in one place: its type, its bounds, its default and what it is for.

Values come from environment variables of the same name in capitals, and from a `.env` file in the project's folder
(ENV_FILE names another; tests read none).
`docs/settings.md` and `.env.example` list the same names; `tests/chatbot_site/settings/test_documented.py` compares them.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from dotenv import dotenv_values
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROJECT_DIR = Path(__file__).resolve().parent.parent.parent

SECRET_KEY_CHARS: Final = 50
# How Railway's references and generators begin: one that stays as it is would be a key that everybody knows.
_UNFILLED: Final = "${{"

CommaSeparated = Annotated[list[str], NoDecode]


class Environment(BaseSettings):
    """The environment as typed values. Field descriptions are the remedies that an error prints."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    # --- needed outside development -----------------------------------------------------------------------------
    secret_key: str = Field(default="", description="a random text of at least 50 characters that signs sessions and encrypts stored keys")
    database_url: str = Field(
        default="", description="a PostgreSQL 15 to 18 with pgvector, such as postgres://user:password@host:5432/name"
    )
    direct_database_url: str = Field(
        default="",
        description="the same database without a transaction pooler in between, where DATABASE_URL leads through one",
    )
    redis_url: str = Field(default="", description="a Redis 6.2+ or Valkey, such as redis://host:6379/0")
    allowed_hosts: CommaSeparated = Field(default=[], description="the host names this server answers to, separated by commas")

    # --- optional -----------------------------------------------------------------------------------------------
    secret_key_fallbacks: CommaSeparated = Field(
        default=[], description="earlier values of SECRET_KEY, separated by commas, while one is being rotated"
    )
    csrf_trusted_origins: CommaSeparated = Field(
        default=[], description="origins such as https://bots.example.com from which the admin is used, separated by commas"
    )
    trusted_proxies: CommaSeparated = Field(
        default=[], description="networks such as 10.0.0.0/8 whose X-Forwarded-For is believed, separated by commas"
    )
    client_address_header: str = Field(
        default="X-Forwarded-For",
        pattern="^(X-Forwarded-For|X-Real-IP)$",
        description="the header in which trusted proxies tell the client's address: X-Forwarded-For or X-Real-IP",
    )
    secure_ssl_redirect: bool = Field(
        default=True, description="true or false: whether plain HTTP is redirected to HTTPS (outside development)"
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR")
    environment_name: str = Field(
        default="",
        validate_default=True,
        max_length=40,
        description="a name such as production or staging that the admin and the logs show, and that the database is stamped with",
    )
    port: int = Field(default=8000, ge=1, le=65535, description="the TCP port to listen on, 1 to 65535")
    web_concurrency: int | None = Field(
        default=None, ge=1, le=64, description="how many web worker processes to run, 1 to 64; absent: as many as cores and memory allow"
    )
    data_dir: Path = Field(default=PROJECT_DIR / ".data", description="the folder in which `make run` keeps its databases and models")
    tiktoken_cache_dir: str = Field(default="", description="the folder that holds tokenizer ranks; absent: inside DATA_DIR")

    # --- models -------------------------------------------------------------------------------------------------
    openai_api_key: str = Field(default="", description="the key of the default provider")
    openai_base_url: str = Field(
        default="", pattern=r"^(https?://\S+)?$", description="the address of an OpenAI-compatible API, ending in /v1"
    )
    default_chat_model: str = Field(default="", max_length=200, description="the model that agents use unless they name another")
    demo_model_url: str = Field(
        default="",
        pattern=r"^(http://127\.0\.0\.1:\d+/v1)?$",
        description="the address of the built-in demo model; `make run` sets it, nobody else needs to",
    )
    outbound_allowed_hosts: CommaSeparated = Field(
        default=[], description="hosts (host or host:port) on private networks that this server may call, separated by commas"
    )

    # --- memory -------------------------------------------------------------------------------------------------
    embedding_base_url: str = Field(
        default="", pattern=r"^(https?://\S+)?$", description="the address of an OpenAI-compatible embeddings API, ending in /v1"
    )
    embedding_api_key: str = Field(default="", description="the key of the embeddings API; absent: OPENAI_API_KEY, at OpenAI only")
    embedding_model: str = Field(default="", max_length=200, description="the embedding model; absent: text-embedding-3-small")
    embedding_dimensions: int = Field(
        default=0,
        ge=0,
        le=4000,
        description="the length of the vectors to ask for, up to 4,000; 0: 512 for text-embedding-3-small, else the model's own",
    )
    embedding_next_base_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="the address of the embeddings API to change to, ending in /v1; absent: EMBEDDING_BASE_URL",
    )
    embedding_next_api_key: str = Field(default="", description="its key; absent: EMBEDDING_API_KEY, at the same address only")
    embedding_next_model: str = Field(
        default="", max_length=200, description="the embedding model to change to, with `manage.py reembed`; absent: none"
    )
    embedding_next_dimensions: int = Field(
        default=0, ge=0, le=4000, description="the length of its vectors, up to 4,000; 0: as for EMBEDDING_DIMENSIONS"
    )
    embedding_cache_s: int = Field(
        default=2_592_000,
        ge=0,
        le=31_536_000,
        description="how many seconds the vector of a text stays in Redis, up to 31,536,000 (a year); 0: not at all",
    )
    embedder_url: str = Field(
        default="",
        pattern=r"^(http://127\.0\.0\.1:\d+/v1)?$",
        description="the address of the built-in embedder, such as http://127.0.0.1:8100/v1; `make run` sets it",
    )
    memory_deadline_ms: int = Field(
        default=150, ge=10, le=10_000, description="how many milliseconds recall may keep an answer waiting, 10 to 10,000"
    )

    # --- alerts -------------------------------------------------------------------------------------------------
    alert_webhook_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="the address of a Slack or Discord webhook, or of anything that takes JSON, where every alert goes",
    )
    email_url: str = Field(
        default="",
        pattern=r"^((smtp|smtps|smtp\+starttls)://\S+)?$",
        description="the mail server that alerts by e-mail are handed in at, such as smtps://user:password@smtp.example.com:465?from=a@example.com",
    )

    # --- errors and traces --------------------------------------------------------------------------------------
    sentry_dsn: str = Field(
        default="", pattern=r"^(https?://\S+@\S+/\d+)?$", description="the DSN of a Sentry project, to which errors are reported"
    )
    otel_exporter_otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="the address of an OpenTelemetry collector that takes traces over HTTP, such as http://localhost:4318",
    )
    release: str = Field(
        default="", max_length=200, description="what is deployed, such as a version or a commit; reported with errors and traces"
    )

    # --- metrics ------------------------------------------------------------------------------------------------
    metrics_token: str = Field(
        default="",
        description="a random text that Prometheus has to show as a bearer token; absent: /metrics is closed outside development",
    )
    worker_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="the TCP port on which the worker shows its own metrics, up to 65,535; 0: none"
    )

    # --- chat limits --------------------------------------------------------------------------------------------
    chat_max_message_chars: int = Field(default=32_000, ge=1, le=1_000_000, description="the longest message in characters, 1 to 1,000,000")
    chat_max_reply_chars: int = Field(
        default=200_000, ge=100, le=5_000_000, description="the longest reply in characters before it is cut, 100 to 5,000,000"
    )
    chat_max_concurrent_turns: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="how many turns one web process answers at once before it sheds load with a 503, 1 to 100,000",
    )
    classifier_deadline_ms: int = Field(
        default=1500,
        ge=100,
        le=10_000,
        description="how many milliseconds the model that says which messages are simple has to answer, 100 to 10,000",
    )
    chat_history_turns: int = Field(
        default=50, ge=0, le=500, description="how many recent turns of a session are considered for the prompt, 0 to 500"
    )
    anonymous_requests_per_minute: int = Field(
        default=30,
        ge=0,
        le=1_000_000,
        description="how many messages a minute one address without a key may send unless the admin says otherwise, up to 1,000,000; "
        "0: any number",
    )
    api_requests_per_minute: int = Field(
        default=300,
        ge=0,
        le=1_000_000,
        description="how many requests a minute each API key, or each address without one, may send to the other routes, up to 1,000,000; "
        "0: any number",
    )
    sign_ins_per_minute: int = Field(
        default=10,
        ge=0,
        le=1_000_000,
        description="how many times a minute one address may try to sign in to the admin, up to 1,000,000; 0: any number",
    )
    max_body_bytes: int = Field(
        default=2_500_000, ge=1_000, le=100_000_000, description="the largest request body in bytes, 1,000 to 100,000,000"
    )
    breaker_failures: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="after how many failures in a row a model is left alone for a while, up to 1,000; 0: never",
    )
    breaker_wait_s: float = Field(
        default=10.0, ge=0.1, le=3600, description="for how many seconds it is left alone before one call tries it again, 0.1 to 3,600"
    )
    database_pool_size: int = Field(default=8, ge=2, le=200, description="how many database connections one process may open, 2 to 200")

    @field_validator(
        "allowed_hosts", "secret_key_fallbacks", "csrf_trusted_origins", "trusted_proxies", "outbound_allowed_hosts", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("data_dir")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        return _in_project(value)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @field_validator("csrf_trusted_origins")
    @classmethod
    def _are_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            if not origin.startswith(("http://", "https://")):
                raise ValueError(f"{origin} must start with https:// or http://")
        return value

    @field_validator("environment_name", mode="before")
    @classmethod
    def _is_named_by_the_host(cls, value: Any) -> Any:
        return value or os.environ.get("RAILWAY_ENVIRONMENT_NAME", "")

    @field_validator("database_url", "direct_database_url")
    @classmethod
    def _is_postgresql(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("postgres", "postgresql"):
            raise ValueError("only PostgreSQL is supported")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("only Redis and Valkey are supported")
        return value


def env_file() -> Path:
    """Return the path of the `.env` file: ENV_FILE, or `.env` in the project's folder."""
    return Path(os.environ.get("ENV_FILE") or PROJECT_DIR / ".env")


def generated_file() -> Path:
    """Return the path of the file in which `make run` leaves the addresses and secrets it made, for `manage.py` beside it."""
    named = os.environ.get("DATA_DIR") or (dotenv_values(env_file()).get("DATA_DIR") if env_file().is_file() else None)
    return _in_project(Path(named) if named else PROJECT_DIR / ".data") / "environment"


def provider_keys(*files: Path) -> dict[str, str]:
    """Return the variables of `files` that hold providers' keys (they end in _API_KEY), whatever vendor they are of."""
    found = {name: value for file in files if file.is_file() for name, value in dotenv_values(file).items()}
    return {name: value for name, value in found.items() if name.endswith("_API_KEY") and value}


def read_environment(*, required: tuple[str, ...] = (), files: tuple[Path, ...] = ()) -> Environment:
    """Return the validated environment.

    Args:
        required: Fields that have no usable default here.
        files: Files of NAME=value lines, where they exist; a later one wins, and the process's own environment wins over all.

    Raises:
        ImproperlyConfigured: names every variable that is missing or wrong, and what to set it to.
    """
    try:
        environment = Environment(_env_file=[file for file in files if file.is_file()])  # type: ignore[call-arg] # known to pydantic-settings only
    except ValidationError as error:
        raise ImproperlyConfigured("\n".join(_explain(detail) for detail in error.errors())) from None
    missing = [name for name in required if not getattr(environment, name)]
    if "secret_key" in required and 0 < len(environment.secret_key) < SECRET_KEY_CHARS:
        raise ImproperlyConfigured(f"SECRET_KEY is too short to be safe. Set it to {_remedy('secret_key')}.")
    if "secret_key" in required and _UNFILLED in environment.secret_key:
        raise ImproperlyConfigured(f"SECRET_KEY is a reference that nobody filled in. Set it to {_remedy('secret_key')}.")
    if missing:
        raise ImproperlyConfigured("\n".join(f"{name.upper()} is not set. Set it to {_remedy(name)}." for name in missing))
    return environment


def _in_project(path: Path) -> Path:
    return PROJECT_DIR / path.expanduser()


def _explain(detail: Any) -> str:
    name = str(detail["loc"][0])
    return f"{name.upper()} is not usable: {detail['msg']}. Set it to {_remedy(name)}."


def _remedy(name: str) -> str:
    return str(Environment.model_fields[name.lower()].description)
