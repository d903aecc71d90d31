"""`.railway/railway.py`, evaluated as Railway's command line does it: in a process of its own that knows of nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from chatbot_site.settings.environment import PROJECT_DIR, Environment
from tests.hosting.platform import PROCFILE

# What the command line runs (railwayapp/cli, src/iac/eval.rs), in words of our own.
EVALUATE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("railway_file", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps({"project": module.main().to_graph(), "kept": module.KEPT, "shared": module.SHARED}))
"""
# `make run` sets these, Railway sets PORT and names the environment, and files lie where they are built.
NOT_HERE = {"DATA_DIR", "DEMO_MODEL_URL", "EMBEDDER_URL", "ENVIRONMENT_NAME", "PORT", "TIKTOKEN_CACHE_DIR"}


@pytest.fixture(scope="module")
def evaluated() -> dict[str, Any]:
    file = PROJECT_DIR / ".railway" / "railway.py"
    done = subprocess.run([sys.executable, "-c", EVALUATE, str(file)], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def resources(evaluated) -> dict[str, Any]:
    return {resource["name"]: resource for resource in evaluated["project"]["resources"]}


def test_there_are_two_services_and_two_stores(resources):
    assert {name: resource["type"] for name, resource in resources.items()} == {
        "Postgres": "database",
        "Redis": "database",
        "web": "service",
        "worker": "service",
    }
    assert "pgvector" in resources["Postgres"]["image"]  # the standard image has none
    assert resources["Postgres"]["engine"] == "postgres"


@pytest.mark.parametrize("name", ["web", "worker"])
def test_services_run_the_procfile_after_its_release_and_drain(resources, name):
    deploy = resources[name]["deploy"]
    assert deploy["startCommand"] == PROCFILE[name]
    assert deploy["preDeployCommand"] == [PROCFILE["release"]]
    assert deploy["drainingSeconds"] == 30  # Railway's own 0 would end streams at once
    build = resources[name]["build"]
    assert build["builder"] == "RAILPACK"
    assert "collectstatic" in build["buildCommand"]  # nothing can be written before a deploy


def test_web_is_asked_whether_it_is_ready(resources):
    assert resources["web"]["deploy"]["healthcheckPath"] == "/health/ready"
    assert "healthcheck.railway.app" in resources["web"]["variables"]["ALLOWED_HOSTS"]["value"]
    assert "healthcheckPath" not in resources["worker"]["deploy"]


@pytest.mark.parametrize("name", ["web", "worker"])
def test_stores_are_the_environments_own_and_secrets_stand_elsewhere(resources, evaluated, name):
    variables = resources[name]["variables"]
    assert variables["DATABASE_URL"] == {"type": "reference", "resource": "database.Postgres", "output": "DATABASE_URL"}
    assert variables["REDIS_URL"] == {"type": "reference", "resource": "database.Redis", "output": "REDIS_URL"}
    for shared in evaluated["shared"]:
        assert variables[shared] == {"type": "sharedReference", "name": shared}
    literals = {key: value["value"] for key, value in variables.items() if value["type"] == "literal"}
    assert not [key for key in literals if key.endswith(("_KEY", "_TOKEN", "_DSN", "PASSWORD"))]
    assert not [value for value in literals.values() if "production" in value or "staging" in value]


def test_every_setting_has_its_place(resources):
    variables = {name for service in ("web", "worker") for name in resources[service]["variables"]}
    assert variables == {name.upper() for name in Environment.model_fields} - NOT_HERE


def test_what_railway_will_fill_in_is_usable(resources, production, manage):
    """With what Railway puts for its references, the settings are accepted and clean."""
    filled = {"${{RAILWAY_PUBLIC_DOMAIN}}": "web-production.up.railway.app", "${{RAILWAY_GIT_COMMIT_SHA}}": "0" * 40}
    environment = production(DATABASE_URL="postgres://postgres:x@postgres.railway.internal:5432/railway", RAILWAY_ENVIRONMENT_NAME="pr-17")
    for name, variable in resources["web"]["variables"].items():
        if variable["type"] == "literal":
            value = variable["value"]
            for reference, meant in filled.items():
                value = value.replace(reference, meant)
            environment[name] = value
    done = manage(environment, "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stderr
    # Before a domain is generated there is none to fill in.
    environment |= {"ALLOWED_HOSTS": ",healthcheck.railway.app", "CSRF_TRUSTED_ORIGINS": "https://"}
    assert manage(environment, "check").returncode == 0
