"""`manage.py doctor` before set-ups that are really broken: it names each fault and its remedy, and prints no secret."""

from __future__ import annotations

import importlib.util
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from chatbot_site.settings.environment import PROJECT_DIR
from observability.doctor import postgresql
from tests.factories import unique
from tests.hosting.doctored import Patient, valkey
from tests.hosting.pgbouncer import pgbouncer
from tests.memory.embedding_server import EmbeddingServer
from tests.ports import free_port
from tests.sinks import SLACK_PATH, black_hole, http_sink
from tests.upstream import Refusal, Reply, Upstream

SECRET_KEY = "a-secret-key-of-the-doctors-patient-that-is-long-enough-to-be-one-really"
PROVIDER_KEY = "sk-the-patients-own-key-1234"
AGENT = "slug: patient\nname: Patient\naccess: public\nsystem_prompt: Be brief.\n"
BUILT = {
    "DJANGO_SETTINGS_MODULE": "tests.hosting.doctored_settings",
    "SECRET_KEY": SECRET_KEY,
    "ALLOWED_HOSTS": "bots.example.com",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "OPENAI_API_KEY": PROVIDER_KEY,
    "DEFAULT_CHAT_MODEL": "test-model",
    "ENV_FILE": os.devnull,
    "ENVIRONMENT_NAME": "production",
}
ALIVE = """
    INSERT INTO observability_rollupstate (id, upto_xid, rolled_up_at) VALUES (1, 0, now())
    ON CONFLICT (id) DO UPDATE SET rolled_up_at = now()
"""
PRICED = """
    INSERT INTO observability_modelprice (provider, model, source, effective_from, input_usd, output_usd, tiers, updated_at)
    VALUES ('environment', 'test-model', 'manual', now() - interval '1 day', 1, 2, '[]', now())
"""


def _url(name: str) -> str:
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}"))


def _server() -> psycopg.Connection:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A database that the release line made, to be copied, and the static files."""
    name, folder = unique("doctors").replace("-", "_"), tmp_path_factory.mktemp("built")
    (folder / "patient.yaml").write_text(AGENT)
    environment = {**os.environ, **BUILT, "STATIC_ROOT": str(folder / "static"), "DATABASE_URL": _url(name)}
    with _server() as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        for command in (
            ["migrate", "--noinput", "-v0"],
            ["setup", "--no-examples"],
            ["agents", "apply", "--publish", str(folder / "patient.yaml")],
            ["collectstatic", "--noinput", "-v0"],
        ):
            subprocess.run([sys.executable, "manage.py", *command], cwd=PROJECT_DIR, env=environment, check=True, capture_output=True)
        yield name, folder / "static"
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def patient(built: tuple[str, Path], production: Callable[..., dict[str, str]], upstream: Upstream) -> Iterator[Patient]:
    """A server in production at which nothing is wrong."""
    template, static = built
    name = unique("patient").replace("-", "_")
    with _server() as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            environment = production(**BUILT, STATIC_ROOT=str(static), DATABASE_URL=_url(name), OUTBOUND_ALLOWED_HOSTS=upstream.netloc)
            patient = Patient(environment, secrets=[PROVIDER_KEY])
            patient.execute(ALIVE, PRICED)
            patient.execute("UPDATE agents_provider SET base_url = %s", values=(upstream.base_url,))
            yield patient
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_nothing_is_wrong(patient: Patient, upstream: Upstream, embedder_port: int) -> None:
    upstream.script(Reply("Hello", usage=(8, 1)))
    with http_sink() as sink:
        address = f"{sink.url}{SLACK_PATH}"
        report = patient.is_examined("--yes", ALERT_WEBHOOK_URL=address, EMBEDDER_URL=f"http://127.0.0.1:{embedder_port}/v1")
        assert SLACK_PATH not in report.output
        assert sink.tried == 0
    assert (report.returncode, report.failures, report.warnings) == (0, set(), set()), report.output
    assert report.says("model: test-model at environment", grade="ok", seen="it answered", remedy="")
    [call] = upstream.calls
    assert call.body["max_tokens"] == 1
    with psycopg.connect(patient.database_url) as database:
        [row] = database.execute("SELECT kind, agent, outcome, prompt_tokens, completion_tokens, cost_usd FROM observability_attempt")
    assert [*row[:5], float(row[5])] == ["evaluation", "", "done", 8, 1, 1e-5]


def test_no_call_is_made_where_nobody_said_yes(patient: Patient, upstream: Upstream) -> None:
    report = patient.is_examined("--json")
    assert report.results["model"]["grade"] == "skipped"
    assert upstream.calls == []


@pytest.mark.parametrize(("answer", "calls"), [("y", 1), ("", 0)])
def test_who_sits_there_is_asked(patient: Patient, upstream: Upstream, answer: str, calls: int) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "wb", buffering=0) as terminal, open(theirs, "rb") as stdin:
        terminal.write(f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "manage.py", "doctor"], cwd=PROJECT_DIR, env=patient.environment, stdin=stdin, capture_output=True, timeout=120
        )
    assert b"costs fractions of a cent" in done.stderr
    assert done.returncode == 0, done.stdout.decode()
    assert len(upstream.calls) == calls


def test_the_table_has_the_remedies(patient: Patient, manage) -> None:
    patient.execute("DROP EXTENSION vector CASCADE")
    done = manage(patient.environment, "doctor", "--no-calls")
    assert done.returncode == 1
    assert "FAIL  extension vector" in done.stdout
    assert "→ CREATE EXTENSION vector;" in done.stdout
    assert "1 fault" in done.stdout.splitlines()[-1]


# --- PostgreSQL ---------------------------------------------------------------------------------------------------------------------


def test_postgresql_is_down(patient: Patient) -> None:
    report = patient.is_examined(DATABASE_URL=patient.with_database(port=free_port()))
    assert report.says("database", grade="failed", seen="refused", remedy="Start PostgreSQL")
    assert report.results["worker"]["grade"] == "skipped"


def test_postgresql_hangs(patient: Patient) -> None:
    with black_hole() as host:
        report = patient.is_examined(DATABASE_URL=patient.with_database(port=int(host.rpartition(":")[2])))
    assert report.says("database", grade="failed", seen="timeout", remedy="firewall")


def test_the_database_does_not_exist(patient: Patient) -> None:
    report = patient.is_examined(DATABASE_URL=patient.with_database(name="nowhere"))
    assert report.says("database", grade="failed", seen='"nowhere" does not exist', remedy="CREATE DATABASE")


def test_the_user_does_not_exist(patient: Patient) -> None:
    report = patient.is_examined(DATABASE_URL=patient.with_database(user="nobody:s3cr3tPassw0rd"))
    assert report.says("database", grade="failed", seen='"nobody"', remedy="Correct the user")
    assert "s3cr3tPassw0rd" not in report.output


def test_the_database_is_another_environments(patient: Patient) -> None:
    report = patient.is_examined(ENVIRONMENT_NAME="staging")
    assert report.says("database", grade="failed", seen="belongs to the environment 'production'", remedy="own database")


def test_the_database_is_read_only(patient: Patient) -> None:
    patient.execute(f'ALTER DATABASE "{urlsplit(patient.database_url).path[1:]}" SET default_transaction_read_only = on')
    assert patient.is_examined().says("database", grade="failed", seen="takes no writes", remedy="primary")


def test_migrations_are_missing(patient: Patient) -> None:
    name = unique("empty").replace("-", "_")
    with _server() as server:
        server.execute(f"CREATE DATABASE {name}")
        report = patient.is_examined(DATABASE_URL=patient.with_database(name=name))
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert report.says("migrations", grade="failed", seen="not applied", remedy="manage.py migrate")
    assert report.says("extension vector", grade="failed", seen="not created", remedy="CREATE EXTENSION vector")


def test_pgvector_is_too_old(patient: Patient) -> None:
    patient.execute("UPDATE pg_extension SET extversion = '0.5.1' WHERE extname = 'vector'")
    assert patient.is_examined().says("extension vector", grade="failed", seen="0.5.1 is too old", remedy="ALTER EXTENSION vector UPDATE")


def test_an_index_is_invalid(patient: Patient) -> None:
    patient.execute("CREATE TABLE twins AS SELECT 1 AS number FROM generate_series(1, 2)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        patient.execute("CREATE UNIQUE INDEX CONCURRENTLY twins_number ON twins (number)")
    assert patient.is_examined().says(
        "indexes: public.twins_number", grade="failed", seen="invalid", remedy="REINDEX INDEX CONCURRENTLY public.twins_number"
    )


def test_row_level_security_is_off(patient: Patient) -> None:
    patient.execute("ALTER TABLE memory_passage DISABLE ROW LEVEL SECURITY")
    assert patient.is_examined().says("row-level security", grade="failed", seen="memory_passage", remedy="ENABLE ROW LEVEL SECURITY")


def test_the_user_stands_above_row_level_security(patient: Patient) -> None:
    user = unique("above").replace("-", "_")
    patient.execute(f"CREATE ROLE {user} LOGIN BYPASSRLS PASSWORD 'above'", f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}")
    try:
        report = patient.is_examined(DATABASE_URL=patient.with_database(user=f"{user}:above"))
    finally:
        patient.execute(f"DROP OWNED BY {user}", f"DROP ROLE {user}")
    assert report.says("row-level security", grade="warning", seen="not in force", remedy="Connect as a user that is no superuser")


def test_a_transaction_pooler_without_a_direct_address(patient: Patient) -> None:
    with pgbouncer(patient.database_url) as pooled:
        report = patient.is_examined(DATABASE_URL=pooled)
        assert report.says("pooler", grade="failed", seen="transaction mode", remedy="Set DIRECT_DATABASE_URL")
        both = patient.is_examined(DATABASE_URL=pooled, DIRECT_DATABASE_URL=pooled)
        assert both.says("pooler", grade="failed", seen="DIRECT_DATABASE_URL leads through a pooler", remedy="Name the database itself")
        well = patient.is_examined(DATABASE_URL=pooled, DIRECT_DATABASE_URL=patient.database_url)
        assert well.says("pooler", grade="ok", seen="past it", remedy="")


def test_a_transaction_pooler_that_lends_both_clients_what_they_had(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody holds the first client's connection when the second begins: then each gets its own back for as long as nothing changes."""
    asked = []

    def ask(database: psycopg.Connection[Any], statement: str) -> Any:
        asked.append(database)
        if len(asked) != 2:
            return ask_at_once(database, statement)
        somebody.execute("SELECT 1")
        answer = ask_at_once(database, statement)
        somebody.rollback()
        return answer

    ask_at_once = postgresql._one
    monkeypatch.setattr(postgresql, "_one", ask)
    with pgbouncer(patient.database_url) as pooled, psycopg.connect(pooled) as somebody:
        monkeypatch.setattr(postgresql, "connection_parameters", lambda *, direct: {"conninfo": pooled})
        assert postgresql._pooling(direct=False) == "transaction"


def test_more_connections_than_there_are(patient: Patient) -> None:
    report = patient.is_examined(DATABASE_POOL_SIZE="200", WEB_CONCURRENCY="8")
    assert report.says("connections", grade="warning", seen="up to 1803", remedy="Lower DATABASE_POOL_SIZE")


def test_a_clock_is_wrong(patient: Patient) -> None:
    patient.execute(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT now() - interval '1 hour' $$",
        f'ALTER DATABASE "{urlsplit(patient.database_url).path[1:]}" SET search_path = public, pg_catalog',
    )
    assert patient.is_examined().says("clock of PostgreSQL", grade="failed", seen="s apart", remedy="NTP")


# --- Redis --------------------------------------------------------------------------------------------------------------------------


def test_redis_is_down(patient: Patient) -> None:
    report = patient.is_examined(REDIS_URL=f"redis://:s3cr3tPassw0rd@127.0.0.1:{free_port()}/0")
    assert report.says("cache", grade="failed", seen="cannot be reached", remedy="Start Redis")
    assert "s3cr3tPassw0rd" not in report.output
    assert report.failures == {"cache"}


def test_redis_hangs(patient: Patient, tmp_path: Path) -> None:
    with valkey(tmp_path) as (url, process):
        process.send_signal(signal.SIGSTOP)
        report = patient.is_examined(REDIS_URL=url)
    assert report.says("cache", grade="failed", seen="no answer within 2 s", remedy="restart it")
    assert report.failures == {"cache"}


def test_redis_wants_a_password(patient: Patient, tmp_path: Path) -> None:
    with valkey(tmp_path, "--requirepass", "s3cr3tPassw0rd") as (url, _):
        report = patient.is_examined(REDIS_URL=url.replace("//", "//:wr0ngPassw0rd@"))
    assert report.says("cache", grade="failed", seen="refuses", remedy="Correct them in REDIS_URL")
    assert "wr0ngPassw0rd" not in report.output


def test_redis_may_forget_what_limits_need(patient: Patient, tmp_path: Path) -> None:
    with valkey(tmp_path, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as (url, _):
        report = patient.is_examined(REDIS_URL=url)
    assert report.says("cache eviction", grade="warning", seen="allkeys-lru", remedy="volatile-lru")


def test_redis_is_full(patient: Patient, tmp_path: Path) -> None:
    with valkey(tmp_path, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as (url, _):
        assert patient.is_examined(REDIS_URL=url).says("cache", grade="failed", seen="full", remedy="Raise its maxmemory")


# --- Work in the background, prices, alerts -----------------------------------------------------------------------------------------


def test_no_worker_runs(patient: Patient) -> None:
    patient.execute("UPDATE observability_rollupstate SET rolled_up_at = now() - interval '1 hour'")
    assert patient.is_examined().says("worker", grade="failed", seen="none was seen since", remedy="manage.py worker")


def test_work_waits_for_long(patient: Patient) -> None:
    patient.execute(
        "INSERT INTO observability_incident (rule_id, subject, name, text, value, level, first_seen_at, last_seen_at)"
        " SELECT id, 'x', 'x', 'x', 1, 0, now(), now() FROM observability_alertrule LIMIT 1",
        "INSERT INTO observability_notice (incident_id, telling, text, created_at, state, tries, due_at, last_error)"
        " SELECT id, 'opened', 'x', now() - interval '1 hour', 'waiting', 3, now(), '' FROM observability_incident",
    )
    assert patient.is_examined().says("queues: alerts", grade="failed", seen="1 waiting", remedy="run more of them")


def test_a_models_price_is_unknown(patient: Patient) -> None:
    patient.execute("DELETE FROM observability_modelprice")
    report = patient.is_examined()
    assert report.says("prices: test-model at environment", grade="warning", seen="unknown", remedy="manage.py prices")


def test_nobody_takes_alerts(patient: Patient) -> None:
    assert patient.is_examined().says("alert targets", grade="warning", seen="nobody is told", remedy="Add a target")
    report = patient.is_examined(ALERT_WEBHOOK_URL=f"http://127.0.0.1:{free_port()}{SLACK_PATH}")
    assert report.says("alert targets: ALERT_WEBHOOK_URL", grade="failed", seen="cannot be reached", remedy="Correct ALERT_WEBHOOK_URL")
    assert SLACK_PATH not in report.output


def test_targets_that_take_no_alerts(patient: Patient) -> None:
    patient.execute(
        "INSERT INTO observability_alerttarget (name, kind, sealed_address, shown_as, is_active, time_zone, created_at, updated_at)"
        " SELECT name, 'slack', 'sealed with another SECRET_KEY', '', true, 'UTC', now(), now()"
        " FROM (VALUES ('Operations'), ('Nights')) AS target (name)",
        "INSERT INTO observability_incident (rule_id, subject, name, text, value, level, first_seen_at, last_seen_at)"
        " SELECT id, 'x', 'x', 'x', 1, 0, now(), now() FROM observability_alertrule LIMIT 1",
        "INSERT INTO observability_notice (incident_id, target_id, telling, text, created_at, state, tries, due_at, last_error)"
        " SELECT incident.id, target.id, 'opened', 'x', now(), 'given_up', 9, now(), 'it answered with the status 404'"
        " FROM observability_incident incident, observability_alerttarget target WHERE target.name = 'Nights'",
    )
    report = patient.is_examined()
    assert report.says("alert targets: Operations", grade="failed", seen="SECRET_KEY changed", remedy="Enter it again")
    assert report.says("alert targets: Nights", grade="failed", seen="with the status 404", remedy="Send test")


# --- Models and embedders -----------------------------------------------------------------------------------------------------------


def test_a_provider_refuses_its_key(patient: Patient, upstream: Upstream) -> None:
    upstream.script(Refusal(401, f"Incorrect API key provided: {PROVIDER_KEY}."))
    report = patient.is_examined("--yes")
    assert report.says("model: test-model at environment", grade="failed", seen="HTTP 401", remedy="enter it again")


def test_a_provider_does_not_know_the_model(patient: Patient, upstream: Upstream) -> None:
    upstream.script(Refusal(404, "The model does not exist."))
    assert patient.is_examined("--yes").says(
        "model: test-model at environment", grade="failed", seen="HTTP 404", remedy="correct the model"
    )


def test_a_provider_is_away(patient: Patient) -> None:
    patient.execute("UPDATE agents_provider SET base_url = %s", values=(url := f"http://127.0.0.1:{free_port()}/v1",))
    report = patient.is_examined("--yes", OUTBOUND_ALLOWED_HOSTS=urlsplit(url).netloc)
    assert report.says("model: test-model at environment", grade="failed", seen="no connection", remedy="Check the provider's address")


def test_a_provider_may_not_be_called(patient: Patient) -> None:
    report = patient.is_examined("--yes", OUTBOUND_ALLOWED_HOSTS="")
    assert report.says("model: test-model at environment", grade="failed", seen="not a public address", remedy="OUTBOUND_ALLOWED_HOSTS")


def test_a_providers_key_is_not_set(patient: Patient) -> None:
    report = patient.is_examined(OPENAI_API_KEY="")
    assert report.says("agents", grade="warning", seen="OPENAI_API_KEY", remedy="Set it in the environment")


def test_the_embedder_gives_other_dimensions(patient: Patient) -> None:
    server = EmbeddingServer(dimensions=24)
    try:
        report = patient.is_examined("--yes", EMBEDDING_BASE_URL=server.url, EMBEDDING_MODEL="words", EMBEDDING_DIMENSIONS="32")
    finally:
        server.stop()
    assert report.says("embedding: words", grade="failed", seen="24 dimensions instead of 32", remedy="Correct EMBEDDING_DIMENSIONS")


def test_another_model_made_what_is_stored(patient: Patient) -> None:
    patient.execute("INSERT INTO memory_embeddingspace (model, dimensions, is_active, created_at) VALUES ('earlier', 64, true, now())")
    report = patient.is_examined(EMBEDDING_BASE_URL="http://127.0.0.1:9/v1", EMBEDDING_MODEL="words")
    assert report.says("stored vectors", grade="failed", seen="Memories are embedded by", remedy="manage.py reembed")


def test_the_embedder_is_away(patient: Patient) -> None:
    report = patient.is_examined("--yes", EMBEDDING_BASE_URL=f"http://127.0.0.1:{free_port()}/v1", EMBEDDING_MODEL="words")
    assert report.says("embedding: words", grade="failed", seen="no connection", remedy="Start the embedder")


# --- Settings and the machine -------------------------------------------------------------------------------------------------------


def test_the_secret_key_is_weak(patient: Patient) -> None:
    report = patient.is_examined(SECRET_KEY="tooShortForAKey")
    assert report.says("settings", grade="failed", seen="SECRET_KEY is too short", remedy="at least 50 characters")


def test_a_setting_is_wrong(patient: Patient) -> None:
    report = patient.is_examined(REDIS_URL="http://:s3cr3tPassw0rd@127.0.0.1")
    assert report.says("settings", grade="failed", seen="REDIS_URL is not usable", remedy="redis://host")
    assert "s3cr3tPassw0rd" not in report.output


def test_debug_mode_in_production(patient: Patient) -> None:
    report = patient.is_examined(IN_DEBUG_MODE="true")
    assert report.failures == {"settings"}, report.output
    assert report.says("settings", grade="failed", seen="DEBUG", remedy="")


def test_an_origin_that_is_not_answered(patient: Patient) -> None:
    report = patient.is_examined(CSRF_TRUSTED_ORIGINS="https://admin.example.com")
    assert report.says("host names", grade="failed", seen="admin.example.com", remedy="Add admin.example.com to ALLOWED_HOSTS")


def test_static_files_are_not_collected(patient: Patient, tmp_path: Path) -> None:
    report = patient.is_examined(STATIC_ROOT=str(tmp_path / "none"))
    assert report.says("static files", grade="failed", seen="not collected", remedy="collectstatic")


def test_the_tokenizers_ranks_are_missing(patient: Patient, tmp_path: Path) -> None:
    report = patient.is_examined(TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert report.says("tokenizer", grade="warning", seen="o200k_base", remedy="manage.py tokenizer_ranks")


def test_too_few_open_files(patient: Patient) -> None:
    report = patient.is_examined(limit=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
    assert report.says("open files", grade="warning", seen="256 a process", remedy="ulimit -n 2200")


@pytest.mark.skipif(importlib.util.find_spec("tzdata") is not None, reason="the package tzdata has them, whatever the system lacks")
def test_time_zones_are_unknown(patient: Patient, tmp_path: Path) -> None:
    report = patient.is_examined(PYTHONTZPATH=str(tmp_path))
    assert report.says("time zones", grade="failed", seen="Europe/Berlin", remedy="tzdata")


def test_all_at_once(patient: Patient) -> None:
    """What hangs keeps nothing else waiting, and the round ends."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        report = patient.is_examined(
            "--yes",
            DATABASE_URL=patient.with_database(port=port),
            REDIS_URL=f"redis://127.0.0.1:{port}/0",
            CSRF_TRUSTED_ORIGINS="https://a.b",
        )
    assert {"database", "cache", "host names"} <= report.failures
    assert max(result["seconds"] for result in report.results.values()) < 30
