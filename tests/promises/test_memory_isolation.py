"""Nobody's memories go astray: none is recalled by a stranger, none comes back, none is lost, none is there twice.

Hypothesis chooses what people, workers and editors do (`benchmarks/memory/storm` does a hundred thousand such operations, several
at once). Then the same holds with the application's own filters cut out of its statements, by row-level security alone: as the
role that production uses, and as a login that owns the tables.
"""

import asyncio
import os
import re
import secrets
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from random import Random
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from django.db import ProgrammingError, connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from psycopg import sql

from benchmarks.memory.storm.embedder import DIMENSIONS, MODEL, embedders
from benchmarks.memory.storm.model import Broken, Mind
from benchmarks.memory.storm.running import do, run_storm
from benchmarks.memory.storm.world import World
from memory import ranking, recall
from memory.embedders.client import embedding_model
from memory.isolation import ROLE, act_for, read_standing
from memory.models import MemoryOwner, Passage, Recalled, Turn
from observability.outbound import close_transports
from tests.factories import forget_vectors
from tests.live_server import PROJECT_DIR

pytestmark = pytest.mark.usefixtures("live_db")
TABLES = ("memory_passage", "memory_sentence", "memory_widesentence", "memory_posting", "memory_recalled")
SEED = 3


@pytest.fixture
def stalling(live_db, settings):
    """An embedder that can be made to stall, beside the one that the settings name; nothing of another test waits for them."""
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    forget_vectors()
    with embedders() as (quick, stalling):
        hosts = [each.url.split("/")[2] for each in (quick, stalling)]
        settings.OUTBOUND_ALLOWED_HOSTS = [*settings.OUTBOUND_ALLOWED_HOSTS, *hosts]
        settings.OPENAI_API_KEY = settings.EMBEDDER_URL = settings.EMBEDDING_API_KEY = ""
        settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL, settings.EMBEDDING_DIMENSIONS = quick.url, MODEL, DIMENSIONS
        settings.MEMORY_DEADLINE_MS = 60_000
        yield stalling


def new_world(stalling, *, users, agents):
    return World(users=users, agents=agents, stalling=stalling, model=embedding_model())


class Storm(RuleBasedStateMachine):
    """A few people and agents, to whom things happen in the worst order that hypothesis finds."""

    stalling = None
    minds = st.integers(0, 5)
    seeds = st.integers(0, 1000)

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.world = new_world(self.stalling, users=3, agents=2)

    def happen(self, name, mind, seed=0):
        self.runner.run(do(self.world, self.world.minds[mind], name, Random(seed)))

    @rule(mind=minds, seed=seeds)
    def say(self, mind, seed):
        self.happen("say", mind, seed)

    @rule(mind=minds, seed=seeds)
    def tell_home(self, mind, seed):
        self.happen("tell_home", mind, seed)

    @rule(mind=minds)
    def remember(self, mind):
        self.happen("remember", mind)

    @rule(mind=minds, seed=seeds)
    def recall(self, mind, seed):
        self.happen("recall", mind, seed)

    @rule(mind=minds)
    def note(self, mind):
        self.happen("note", mind)

    @rule(mind=minds, seed=seeds)
    def correct(self, mind, seed):
        self.happen("correct", mind, seed)

    @rule(mind=minds, seed=seeds)
    def forget(self, mind, seed):
        self.happen("forget", mind, seed)

    @rule(mind=minds)
    def forget_all(self, mind):
        self.happen("forget_all", mind)

    @rule(mind=minds)
    def erase(self, mind):
        self.happen("erase", mind)

    @rule(mind=minds)
    def lose_worker(self, mind):
        self.happen("lose_worker", mind)

    @rule(mind=minds)
    def stall_worker(self, mind):
        self.happen("stall_worker", mind)

    @rule(mind=minds)
    def check(self, mind):
        self.happen("check", mind)

    def teardown(self):
        async def compare():
            try:
                for mind in self.world.minds:
                    await self.world.check(mind)
            finally:
                await close_transports()

        with self.runner:
            self.runner.run(compare())


def test_nothing_goes_astray_whatever_happens_in_whatever_order(stalling):
    machine = type("StormOfThisTest", (Storm,), {"stalling": stalling})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30, stateful_step_count=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_storm_of_several_at_once_loses_and_mixes_up_nothing(stalling):
    figures = asyncio.run(run_storm(operations=1200, seed=SEED, stalling=stalling))
    assert figures["operations"] >= 1200
    assert set(figures["of_each"]) >= {"recalls", "workers killed", "people erased", "memories corrected"}


# --- by row-level security alone ------------------------------------------------------------------------------------------


@pytest.fixture
def without_filter(monkeypatch):
    """Recall's function with its owner cut out, as if somebody had forgotten it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_functiondef('rank_memory'::regproc)")
        [(whole,)] = cursor.fetchall()
        cut, times = re.subn(r"(exact\.)?owner_id = of_owner", "true", whole)
        assert times >= 6
        cursor.execute(cut.replace("FUNCTION public.rank_memory(", "FUNCTION public.rank_memory_of_anybody("))
    monkeypatch.setattr(ranking, "_RANK", ranking._RANK.replace("rank_memory(", "rank_memory_of_anybody("))
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION rank_memory_of_anybody")


def test_the_storm_is_as_calm_with_the_filters_cut_out_of_recall(stalling, without_filter):
    asyncio.run(run_storm(operations=600, seed=SEED + 1, stalling=stalling))


def test_without_either_lock_the_storm_notices(stalling, without_filter, monkeypatch):
    monkeypatch.setattr(recall, "act_for", lambda owners, **limits: None)
    if not read_standing().is_above_it:
        pytest.skip("this database user is held by row-level security whatever it does")
    with pytest.raises(ExceptionGroup) as broken:
        asyncio.run(run_storm(operations=600, seed=SEED, stalling=stalling))
    assert all(isinstance(error, Broken) for error in broken.value.exceptions)


@pytest.fixture
def owners(stalling):
    """Two people with rows in every table that is held; returns their owners' ids."""
    world = new_world(stalling, users=2, agents=1)

    async def talk():
        try:
            for mind in world.minds:
                for session in range(3):
                    await world.say(mind, session)
                await world.note(mind)
                await world.check(mind)
        finally:
            await close_transports()

    asyncio.run(talk())
    ids = list(MemoryOwner.objects.filter(agent__in=world.agents).order_by("id").values_list("id", flat=True))
    for id in ids:
        passage = Passage.objects.filter(owner=id, turn__isnull=False).first()
        Recalled.objects.create(turn_id=passage.turn_id, passage=passage, owner_id=id, position=1, score=1.0, recalled_at=datetime.now(UTC))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO memory_widesentence SELECT owner_id, space_id, seq, place, words, is_question,"
            " binary_quantize(embedding)::varbit, embedding FROM memory_sentence WHERE owner_id = ANY(%s)",
            [ids],
        )
    return ids


def owners_seen(table):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT owner_id FROM {table}")  # noqa: S608 - a table's name
        return {id for (id,) in cursor.fetchall()}


def test_production_works_as_a_role_that_the_policies_hold():
    standing = read_standing()
    assert standing.may_take_role
    assert standing.is_held
    with transaction.atomic(), connection.cursor() as cursor:
        act_for([])
        cursor.execute("SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (ROLE, False, False)
        cursor.execute("SELECT count(*) FROM pg_tables WHERE tablename = ANY(%s) AND tableowner = %s", [list(TABLES), ROLE])
        assert cursor.fetchone() == (0,)
    with connection.cursor() as cursor:
        cursor.execute("SELECT bool_and(relrowsecurity AND relforcerowsecurity) FROM pg_class WHERE relname = ANY(%s)", [list(TABLES)])
        assert cursor.fetchone() == (True,)
        cursor.execute("SELECT current_user")
        assert cursor.fetchone() != (ROLE,), "the role lasts no longer than its transaction"


@pytest.mark.parametrize("table", TABLES)
def test_a_statement_that_names_nobody_sees_one_owners_rows_or_none(owners, table):
    if read_standing().is_above_it:
        assert owners_seen(table) >= set(owners), "there are others' rows to see"
    for owner in owners:
        with transaction.atomic():
            act_for([owner])
            assert owners_seen(table) == {owner}
    with transaction.atomic():
        act_for([])
        assert owners_seen(table) == set()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {ROLE}")  # and says for nobody
        assert owners_seen(table) == set()


@pytest.mark.parametrize("table", TABLES)
def test_nor_does_it_change_or_delete_them(owners, table):
    mine, other = owners
    with transaction.atomic(), connection.cursor() as cursor:
        act_for([mine])
        cursor.execute(f"DELETE FROM {table} WHERE owner_id = %s", [other])  # noqa: S608 - a table's name
        assert cursor.rowcount == 0
        cursor.execute(f"UPDATE {table} SET owner_id = owner_id WHERE owner_id = %s", [other])  # noqa: S608 - a table's name
        assert cursor.rowcount == 0
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            cursor.execute(f"UPDATE {table} SET owner_id = %s", [other])  # noqa: S608 - a table's name


def test_the_model_notices_every_kind_of_mistake():
    mind = Mind("agent", "user", live={"mine": None}, history={"old"}, gone={"gone"})
    mind.check_recalled(["mine"], asked="mine")
    for recalled, word in ((["mine", "mine"], "doubled"), (["old"], "outdated"), (["gone"], "back"), (["theirs"], "foreign"), ([], "lost")):
        with pytest.raises(Broken, match=word):
            mind.check_recalled(recalled, asked="mine")
    mind.check_stored([("mine", "added", True), ("old", "added", False)])
    for rows in ([], [("mine", "added", True)] * 2, [("mine", "turn", True), ("gone", "turn", False)], [("mine", "turn", False)]):
        with pytest.raises(Broken):
            mind.check_stored(rows)


# --- as a login that owns the tables, and is no superuser -----------------------------------------------------------------


@pytest.fixture
def plain_login():
    """Make a login without privileges, and a migrated database of its own; returns the database's URL."""
    url = urlsplit(os.environ["DATABASE_URL"])
    name, password = f"plain_{secrets.token_hex(4)}", secrets.token_hex(8)
    own_url = urlunsplit(url._replace(netloc=f"{name}:{password}@{url.netloc.rpartition('@')[2]}", path=f"/{name}"))
    with psycopg.connect(urlunsplit(url._replace(path="/postgres")), autocommit=True) as server, ExitStack() as stack:
        role = sql.Identifier(name)
        server.execute(sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD {}").format(role, sql.Literal(password)))
        stack.callback(server.execute, sql.SQL("DROP ROLE {}").format(role))
        server.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        stack.callback(server.execute, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(role))
        with psycopg.connect(urlunsplit(url._replace(path=f"/{name}")), autocommit=True) as own:
            own.execute("CREATE EXTENSION vector")  # which needs a superuser, once
        run(own_url, "manage.py", "migrate", "--verbosity=0")
        yield own_url


def run(database_url, *arguments):
    environment = {**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.test"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=PROJECT_DIR, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_whoever_owns_the_tables_is_held_by_the_policies_too(plain_login):
    with psycopg.connect(plain_login) as login:
        row = login.execute("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user").fetchone()
        assert row == (False, False)
        owned = login.execute("SELECT tablename FROM pg_tables WHERE tableowner = current_user AND tablename = ANY(%s)", [list(TABLES)])
        assert {name for (name,) in owned} == set(TABLES)
        owners = []
        for name in ("Ada", "Bob"):
            [subject] = login.execute(
                "INSERT INTO memory_subject (owner, name, created_at) VALUES ('owner:1', %s, now()) RETURNING id", [name]
            ).fetchone()
            [owner] = login.execute(
                "INSERT INTO memory_owner (agent, subject_id, user_name, agent_name, created_at)"
                " VALUES ('companion', %s, '', '', now()) RETURNING id",
                [subject],
            ).fetchone()
            owners.append(owner)
            login.execute("SELECT set_config('app.owners', %s, true)", [f"{{{owner}}}"])
            login.execute(
                "INSERT INTO memory_passage (owner_id, origin, session, seq, speaker, part, said_at, text, content_hash, length,"
                " window_length, word_count, asks, has_time, has_number, has_reason, has_name, spans)"
                " VALUES (%s, 'added', -10, -10, 'note', 0, now(), %s, 'hash', 1, 1, 1, 0, false, false, false, false, '{}')",
                [owner, f"{name} likes plums"],
            )
            login.execute("INSERT INTO memory_posting VALUES (%s, 'plum', -10, 1, false)", [owner])
        login.commit()
        for owner, text in zip(owners, ("Ada likes plums", "Bob likes plums"), strict=True):
            login.execute("SELECT set_config('app.owners', %s, true)", [f"{{{owner}}}"])
            assert login.execute("SELECT owner_id, text FROM memory_passage").fetchall() == [(owner, text)]
            assert login.execute("SELECT owner_id FROM memory_posting").fetchall() == [(owner,)]
            login.commit()
        for table in TABLES:
            assert login.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone() == (0,)
        login.execute("SELECT set_config('app.owners', %s, true)", [f"{{{owners[0]}}}"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            login.execute("UPDATE memory_posting SET owner_id = %s", [owners[1]])


STORM = f"""
import asyncio, os
from benchmarks.memory.storm.embedder import embedders
with embedders() as (quick, stalling):
    os.environ |= {{
        "EMBEDDING_BASE_URL": quick.url, "EMBEDDING_MODEL": "{MODEL}", "EMBEDDING_DIMENSIONS": "{DIMENSIONS}",
        "MEMORY_DEADLINE_MS": "10000", "OUTBOUND_ALLOWED_HOSTS": ",".join(each.url.split("/")[2] for each in (quick, stalling)),
    }}
    import django
    django.setup()
    from benchmarks.memory.storm.running import run_storm
    from memory.isolation import read_standing
    standing = read_standing()
    assert (standing.is_above_it, standing.may_take_role) == (False, False), standing
    print(asyncio.run(run_storm(operations=400, seed={SEED}, stalling=stalling))["operations"])
"""


def test_the_storm_is_as_calm_for_such_a_login(plain_login):
    assert int(run(plain_login, "-c", STORM).split()[-1]) >= 400
