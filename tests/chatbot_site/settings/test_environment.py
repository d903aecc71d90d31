"""Every wrong value is refused with the variable's name and the remedy; nothing outside development has a weak default."""

import os
import secrets
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from chatbot_site.settings.environment import PROJECT_DIR, Environment, generated_file, read_environment

PRODUCTION = {
    "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.prod",
    "SECRET_KEY": secrets.token_urlsafe(48),
    "DATABASE_URL": os.environ["DATABASE_URL"],
    "REDIS_URL": os.environ["REDIS_URL"],
    "ALLOWED_HOSTS": "bots.example.com",
    "ENV_FILE": os.devnull,
    "PATH": os.environ["PATH"],
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in Environment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("PORT", "0", "the TCP port to listen on"),
        ("PORT", "70000", "the TCP port to listen on"),
        ("PORT", "http", "the TCP port to listen on"),
        ("WEB_CONCURRENCY", "none", "how many web worker processes"),
        ("DATABASE_URL", "sqlite:///x", "a PostgreSQL 15 to 18 with pgvector"),
        ("DIRECT_DATABASE_URL", "mysql://x", "the same database without a transaction pooler"),
        ("REDIS_URL", "memcached://x", "a Redis 6.2+ or Valkey"),
        ("CLIENT_ADDRESS_HEADER", "X-Whatever", "the header in which trusted proxies tell"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,everybody", "networks such as"),
        ("CSRF_TRUSTED_ORIGINS", "bots.example.com", "origins such as https://"),
        ("SECURE_SSL_REDIRECT", "perhaps", "true or false"),
        ("LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING or ERROR"),
        ("ENVIRONMENT_NAME", "x" * 41, "a name such as production"),
        ("OPENAI_BASE_URL", "localhost:11434", "the address of an OpenAI-compatible API"),
        ("DEMO_MODEL_URL", "http://example.com/v1", "the address of the built-in demo model"),
        ("DEFAULT_CHAT_MODEL", "x" * 201, "the model that agents use"),
        ("CHAT_MAX_MESSAGE_CHARS", "0", "the longest message"),
        ("CHAT_MAX_REPLY_CHARS", "99", "the longest reply"),
        ("CHAT_MAX_CONCURRENT_TURNS", "-1", "how many turns"),
        ("CHAT_HISTORY_TURNS", "501", "how many recent turns"),
        ("MAX_BODY_BYTES", "999", "the largest request body"),
        ("DATABASE_POOL_SIZE", "1", "how many database connections"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(monkeypatch, name, value, remedy):
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as refusal:
        read_environment()
    assert str(refusal.value).startswith(f"{name} is not usable: ")
    assert f"Set it to {remedy}" in str(refusal.value)


def test_secrets_are_not_repeated_in_errors(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "mysql://user:hidden@host/name")
    monkeypatch.setenv("PORT", "hidden")
    with pytest.raises(ImproperlyConfigured) as refusal:
        read_environment()
    assert "hidden" not in str(refusal.value)
    assert str(refusal.value).count("Set it to") == 2


def test_lists_are_split_at_commas(monkeypatch):
    monkeypatch.setenv("ALLOWED_HOSTS", " a.example.com, b.example.com,,")
    assert read_environment().allowed_hosts == ["a.example.com", "b.example.com"]


def test_the_environment_wins_over_files_and_the_later_file_over_the_earlier(tmp_path, monkeypatch):
    generated, own = tmp_path / "environment", tmp_path / ".env"
    generated.write_text("DATABASE_URL='postgres://generated/x'\nREDIS_URL='redis://generated/0'\nSECRET_KEY='generated'\n")
    own.write_text("DATABASE_URL=postgres://own/x\nREDIS_URL=\nSECRET_KEY=own\n")
    monkeypatch.setenv("SECRET_KEY", "from the environment")
    environment = read_environment(files=(generated, own))
    assert environment.database_url == "postgres://own/x"
    assert environment.redis_url == "redis://generated/0"  # an empty value counts as absent
    assert environment.secret_key == "from the environment"


def test_the_generated_file_is_found_where_data_dir_says(tmp_path, monkeypatch):
    own = tmp_path / ".env"
    monkeypatch.setenv("ENV_FILE", str(own))
    assert generated_file() == PROJECT_DIR / ".data" / "environment"
    own.write_text("DATA_DIR=elsewhere\n")
    assert generated_file() == PROJECT_DIR / "elsewhere" / "environment"
    monkeypatch.setenv("DATA_DIR", "/somewhere")
    assert str(generated_file()) == "/somewhere/environment"


def django(command, **env):
    return subprocess.run([sys.executable, "manage.py", *command], cwd=PROJECT_DIR, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["SECRET_KEY", "DATABASE_URL", "REDIS_URL", "ALLOWED_HOSTS"])
def test_production_does_not_start_without(name):
    done = django(["check"], **{key: value for key, value in PRODUCTION.items() if key != name})
    assert done.returncode != 0
    assert f"{name} is not set. Set it to {Environment.model_fields[name.lower()].description}." in done.stderr


def test_production_does_not_start_with_a_short_secret_key():
    done = django(["check"], **PRODUCTION | {"SECRET_KEY": "changeme"})
    assert done.returncode != 0
    assert "SECRET_KEY is too short" in done.stderr


def test_production_does_not_start_with_a_generator_that_generated_nothing():
    done = django(["check"], **PRODUCTION | {"SECRET_KEY": '${{secret(64, "abcdefghijklmnopqrstuvwxyz0123456789")}}'})
    assert done.returncode != 0
    assert "SECRET_KEY is a reference that nobody filled in" in done.stderr


def test_production_is_ready_to_be_deployed():
    done = django(["check", "--deploy", "--fail-level", "WARNING"], **PRODUCTION)
    assert done.returncode == 0, done.stderr


def test_production_never_debugs():
    code = "from django.conf import settings as s; print(s.DEBUG, s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_SSL_REDIRECT)"
    assert django(["shell", "--no-imports", "-c", code], **PRODUCTION, DEBUG="true").stdout.split() == ["False", "True", "True", "True"]
