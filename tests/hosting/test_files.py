"""Files that other programs read: what they name exists, and says the same as the Procfile."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chatbot_site.settings.environment import PROJECT_DIR, Environment
from tests.hosting.platform import PROCFILE

DOCKER = PROJECT_DIR / "deploy" / "docker"
UNITS = sorted((PROJECT_DIR / "deploy" / "systemd").glob("*.service"))


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return dict(yaml.safe_load((PROJECT_DIR / ".github" / "workflows" / "ci.yml").read_text()))


def commands_of(job: dict[str, Any]) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def test_deploys_wait_for_tests_and_use_a_token_of_their_environment(workflow):
    jobs = workflow["jobs"]
    assert workflow[True] == {"push": {"branches": ["main"], "tags": ["v*"]}, "pull_request": None, "workflow_dispatch": None}  # "on"
    assert workflow["permissions"] == {"contents": "read"}
    for name, condition in (("staging", "refs/heads/main"), ("production", "refs/tags/v")):
        assert set(jobs[name]["needs"]) == {"test", "audit"}
        assert jobs[name]["environment"]["name"] == name
        assert condition in jobs[name]["if"]
        assert jobs[name]["env"] == {"RAILWAY_TOKEN": "${{ secrets.RAILWAY_TOKEN }}"}
        assert [f"--service {service}" in commands_of(jobs[name]) for service in ("web", "worker")] == [True, True]
    assert "RAILWAY_TOKEN" not in str(jobs["test"]) + str(jobs["audit"])  # pull requests of strangers run these


def test_the_workflow_names_what_exists(workflow):
    jobs = workflow["jobs"]
    assert {needed for job in jobs.values() for needed in job.get("needs", [])} <= set(jobs)
    said = "\n".join(commands_of(job) for job in jobs.values())
    assert os.access(PROJECT_DIR / ".ci" / "run", os.X_OK)
    assert ".ci/run" in said
    for path in re.findall(r"(?:-r|--file) (\S+)", said):
        assert (PROJECT_DIR / path).exists(), path
    for word in ("pip-audit --strict", "bandit"):
        assert word in said
    assert (PROJECT_DIR / jobs["test"]["steps"][1]["with"]["python-version-file"]).exists()


def test_the_image_runs_the_procfile_as_an_ordinary_user():
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    web = next(line for line in lines if line.startswith('CMD ["gunicorn"'))
    assert eval(web.removeprefix("CMD ")) == shlex.split(PROCFILE["web"])  # noqa: S307 - a list of texts
    assert lines.index("USER chatbot") < lines.index(web)
    assert lines[-1] == "FROM server"
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert compose["worker"]["command"] == shlex.split(PROCFILE["worker"])
    assert compose["release"]["command"] == ["sh", "-c", PROCFILE["release"]]
    for name in ("web", "worker", "embedder"):
        assert compose[name]["read_only"] is True
        assert compose[name]["cap_drop"] == ["ALL"]
    assert compose["embedder"]["ports"][0].endswith(":" + compose["web"]["environment"]["PORT"])
    named = {*compose["web"]["environment"]} - {"POSTGRES_PASSWORD"}
    assert named <= {name.upper() for name in Environment.model_fields}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with what the Dockerfile's `COPY . .` brings in: what .dockerignore lets through."""
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    for name in (line.removeprefix("!") for line in lines if line.startswith("!")):
        source, target = PROJECT_DIR / name, tmp_path / "app" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    shutil.rmtree(tmp_path / "app" / "chatbot_site" / "local")
    return tmp_path / "app"


def test_what_the_image_is_built_with_works_and_serves_hashed_files(image, tmp_path):
    """The Dockerfile's own RUN, in its own folder and environment; no image is built here."""
    dockerfile = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    run = next(line.removeprefix("RUN ") for line in dockerfile.splitlines() if "collectstatic" in line)
    env = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.prod",
        "TIKTOKEN_CACHE_DIR": str(image / "tokenizer"),
    }
    done = subprocess.run(["sh", "-c", run], cwd=image, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list((image / "tokenizer").iterdir())) == 2
    styles = [file.name for file in (image / "staticfiles" / "admin_agents").iterdir()]
    assert any(re.fullmatch(r"pages\.[0-9a-f]{12}\.css", name) for name in styles), styles
    assert (image / "staticfiles" / "staticfiles.json").exists()


def test_secrets_are_made_once(tmp_path):
    folder = tmp_path / "deploy" / "docker"
    folder.mkdir(parents=True)
    shutil.copy(DOCKER / "secrets.sh", folder)
    for _ in range(2):
        subprocess.run([folder / "secrets.sh"], check=True, capture_output=True)
        text = (tmp_path / ".env").read_text()
    made = dict(line.split("=") for line in text.splitlines())
    assert set(made) == {"SECRET_KEY", "POSTGRES_PASSWORD"}
    assert min(map(len, made.values())) >= 50
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_units_run_the_procfile_and_are_hardened():
    starts = {file.stem.removeprefix("chatbot-"): dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE)) for file in UNITS}
    assert set(starts) == {"web", "worker", "embedder"}
    for name in ("web", "worker"):
        assert starts[name]["ExecStart"].replace("/opt/chatbots/.venv/bin/", "") == PROCFILE[name]
    for settings in starts.values():
        assert settings["User"] == "chatbot"
        assert (settings["NoNewPrivileges"], settings["ProtectSystem"], settings["CapabilityBoundingSet"]) == ("yes", "strict", "")
        assert int(settings["TimeoutStopSec"]) >= 30


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze here")
def test_systemd_understands_the_units(tmp_path):
    program = shutil.which("true")
    for file in UNITS:
        text = re.sub(r"/opt/chatbots/\.venv/bin/\w+", str(program), file.read_text()).replace("/opt/chatbots", str(tmp_path))
        (tmp_path / file.name).write_text(text)
    files = [tmp_path / file.name for file in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
