"""The example files hold what their environments need, and nothing that nobody documents."""

from __future__ import annotations

import secrets

import pytest
from dotenv import dotenv_values

from chatbot_site.settings.environment import PROJECT_DIR, Environment, read_environment

REQUIRED = ("secret_key", "database_url", "redis_url", "allowed_hosts")
FILES = {"production": ".env.prod.example", "staging": ".env.staging.example"}


@pytest.fixture
def no_settings(monkeypatch):
    for name in Environment.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def read(name, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", secrets.token_urlsafe(48))
    return read_environment(required=REQUIRED, files=(PROJECT_DIR / FILES[name],))


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_a_setting(name):
    unknown = {variable for variable in dotenv_values(PROJECT_DIR / FILES[name]) if variable.lower() not in Environment.model_fields}
    assert not unknown


@pytest.mark.parametrize("name", FILES)
def test_nothing_but_the_secret_key_is_missing(name, no_settings, monkeypatch):
    with pytest.raises(Exception, match=r"^SECRET_KEY is not set\. Set it to a random text") as refusal:
        read_environment(required=REQUIRED, files=(PROJECT_DIR / FILES[name],))
    assert str(refusal.value).count("is not set") == 1
    environment = read(name, monkeypatch)
    assert environment.environment_name == name
    assert environment.secure_ssl_redirect
    assert environment.trusted_proxies


def test_staging_shares_nothing_with_production(no_settings, monkeypatch):
    production, staging = read("production", monkeypatch), read("staging", monkeypatch)
    for name in ("database_url", "redis_url", "allowed_hosts", "csrf_trusted_origins", "port", "environment_name"):
        assert getattr(production, name) != getattr(staging, name), name


@pytest.mark.parametrize("name", FILES)
def test_production_settings_are_clean_with_it(name, production, manage):
    environment = {variable: value for variable, value in production().items() if variable.lower() not in Environment.model_fields}
    environment |= {"ENV_FILE": str(PROJECT_DIR / FILES[name]), "SECRET_KEY": secrets.token_urlsafe(48)}
    done = manage(environment, "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr


def test_the_host_names_the_environment(no_settings, monkeypatch):
    monkeypatch.setenv("RAILWAY_ENVIRONMENT_NAME", "pr-17")
    assert read_environment().environment_name == "pr-17"
    monkeypatch.setenv("ENVIRONMENT_NAME", "staging")
    assert read_environment().environment_name == "staging"
