"""`manage.py reembed`: another model, while memory is written and recalled; broken off and gone on with."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from django.db import connection

from memory.api import Wish, recall
from memory.embedders.configured import embedding_model, next_embedding_model
from memory.models import EmbeddingSpace, MemoryOwner, Passage, Sentence, Turn, WideSentence
from memory.reembedding import PASSAGES_AT_ONCE
from memory.sources import Whose
from memory.spaces import WrongSpace, model_in_use
from memory.wishes import Room
from memory.writing import remember_due_turns
from observability.outbound import close_transports
from tests.factories import forget_vectors, unique
from tests.memory.embedding_server import EmbeddingServer
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("live_db")


@pytest.fixture(autouse=True)
def _nothing_stored(live_db):
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    forget_vectors()
    Passage.objects.all().delete()
    yield
    forget_vectors()


@pytest.fixture
def servers(settings):
    """Two embedding servers, of the model in use (64 dimensions) and of the next (96), which the settings name."""
    old, new = EmbeddingServer(dimensions=64), EmbeddingServer(dimensions=96)
    settings.OUTBOUND_ALLOWED_HOSTS = [old.address, new.address]
    settings.MEMORY_DEADLINE_MS = 60_000
    settings.EMBEDDER_URL = settings.OPENAI_API_KEY = ""
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = old.url, "old"
    settings.EMBEDDING_NEXT_BASE_URL, settings.EMBEDDING_NEXT_MODEL = new.url, "new"
    yield old, new
    old.stop()
    new.stop()


@pytest.fixture
def start(server_environment, servers):
    """Start `manage.py reembed` in a process of its own: `start("--dry-run")`."""
    old, new = servers
    environment = {
        **os.environ,
        **server_environment,
        "DJANGO_SETTINGS_MODULE": "chatbot_site.settings.prod",
        "SECRET_KEY": "only-for-tests-" * 5,
        "ALLOWED_HOSTS": "localhost",
        "EMBEDDING_CACHE_S": "600",
        "EMBEDDING_BASE_URL": old.url,
        "EMBEDDING_MODEL": "old",
        "EMBEDDING_NEXT_BASE_URL": new.url,
        "EMBEDDING_NEXT_MODEL": "new",
    }
    started = []

    def start(*arguments, **variables):
        command = [sys.executable, "manage.py", "reembed", *arguments]
        process = subprocess.Popen(
            command, env=environment | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def end(process):
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def run(task):
    async def to_the_end():
        try:
            return await task
        finally:
            await close_transports()

    return asyncio.run(to_the_end())


def remember():
    async def drain():
        while True:
            try:
                if not await remember_due_turns(await asyncio.to_thread(used)):
                    return
            except WrongSpace:  # the model was changed in between: the worker tries again, too
                continue

    def used():
        try:
            return model_in_use()
        finally:
            connection.close()

    run(drain())


def say(finish, count, *, person=None, start=0):
    """Let somebody tell of so many things; return the last turn's id."""
    person = person or unique("person")
    for number in range(start, start + count):
        turn = finish(f"Thing{number} lies in drawer{number}. It is number {number}.", "", subject=person, session=unique("s"))
    return turn


def ask(question, turn_id):
    turn = Turn.objects.get(pk=turn_id)
    whose = Whose(agent=turn.agent, conversation_id=turn.conversation_id)
    wish = Wish(question=question, whose=whose, limit=3, room=Room(500, frozenset()), tokens_of=lambda found: len(found.text.split()))
    return run(recall(wish))


def places(space, table=Sentence):
    return set(table.objects.filter(space=space).values_list("owner_id", "seq", "place"))


def spaces():
    return {space.model: space for space in EmbeddingSpace.objects.all()}


def test_how_much_there_is_to_do(servers, start, finish):
    say(finish, 5)
    remember()
    code, output = end(start("--dry-run"))
    assert code == 0, output
    assert re.search(r"From old \(64\) to new \(96\): 10 texts in 5 memories, about 4\d tokens", output)
    assert not places(spaces()["new"])
    assert spaces()["old"].is_active


def test_every_memory_gets_a_vector_of_the_new_model_which_is_then_used(servers, start, finish, settings):
    old, new = servers
    turns = [say(finish, count) for count in (1, 40, 80)]
    remember()
    code, output = end(start())
    assert code == 0, output
    assert "242 texts embedded. Memory now uses new (96)." in output
    assert (spaces()["new"].is_active, spaces()["old"].is_active) == (True, False)
    assert places(spaces()["new"]) == places(spaces()["old"])
    asked_of_old = old.texts.total()
    assert ask("Where is Thing7?", turns[1]).passages[0].text.startswith("Thing7 ")
    assert model_in_use() == next_embedding_model()
    say(finish, 1)
    remember()
    assert old.texts.total() == asked_of_old
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = new.url, "new"
    settings.EMBEDDING_NEXT_BASE_URL = settings.EMBEDDING_NEXT_MODEL = ""
    assert model_in_use() == embedding_model()
    assert "already" in end(start())[1]


def test_memory_is_recalled_and_written_all_the_while(servers, start, finish):
    _, new = servers
    turn = say(finish, 150, person=(person := unique("person")))
    remember()
    new.delay_s = 0.2
    process = start()
    done = threading.Event()
    threading.Thread(target=lambda: (process.wait(), done.set()), daemon=True).start()
    used, said = [], 150
    while not done.is_set():
        recalled = ask("Where is Thing3?", turn)
        assert recalled.passages, recalled
        assert recalled.passages[0].text.startswith("Thing3 ")
        used.append(model_in_use().name)
        say(finish, 1, person=person, start=said)
        remember()
        said += 1
        assert said < 1000, "it waits for somebody to stop talking"
    code, output = end(process)
    assert code == 0, output
    assert (used[0], said > 152) == ("old", True)
    assert ask("Where is Thing3?", turn).passages
    # Whatever was said is there, once, in the space that is used now.
    owner = MemoryOwner.objects.get(subject=Turn.objects.get(pk=turn).conversation.subject)
    told = set(Passage.objects.filter(owner=owner).values_list("seq", flat=True))
    assert {seq for _, seq, _ in places(spaces()["new"])} == told
    assert len(told) == said


def test_killed_and_run_again_it_goes_on_and_embeds_nothing_twice(servers, start, finish):
    _, new = servers
    say(finish, 300)
    remember()
    new.delay_s = 0.15
    process = start()
    eventually(lambda: "new" in spaces() and len(places(spaces()["new"])) > 100, what="some are done", timeout_s=90)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = places(spaces()["new"])
    assert done < places(spaces()["old"])
    assert spaces()["old"].is_active
    new.delay_s = 0
    code, output = end(start())
    assert code == 0, output
    assert places(spaces()["new"]) == places(spaces()["old"])
    new.texts.pop("Which length?")
    # But for what the killed process was waiting for: passages of two sentences.
    assert sum(new.texts.values()) - len(new.texts) <= 2 * PASSAGES_AT_ONCE


def test_what_is_forgotten_meanwhile_does_not_come_back(servers, start, finish):
    _, new = servers
    say(finish, 200)
    remember()
    new.delay_s = 0.15
    process = start()
    eventually(lambda: new.texts.total() > 100, what="some are embedded", timeout_s=90)
    Passage.objects.filter(seq__lt=500).delete()
    code, output = end(process)
    assert code == 0, output
    left = set(Passage.objects.values_list("owner_id", "seq"))
    assert left
    assert {(owner, seq) for owner, seq, _ in places(spaces()["new"])} == left


def test_from_long_vectors_to_short_ones_and_back(servers, start, finish, settings):
    old, new = servers
    new.dimensions = 1536
    turn = say(finish, 30)
    remember()
    code, output = end(start())
    assert (code, spaces()["new"].is_active, spaces()["new"].is_wide) == (0, True, True), output
    assert places(spaces()["new"], WideSentence) == places(spaces()["old"])
    assert ask("Where is Thing7?", turn).passages[0].text.startswith("Thing7 ")
    code, output = end(start("--drop-old"))
    assert (code, "60 vectors of old (64) deleted" in output, spaces().keys()) == (0, True, {"new"}), output
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = new.url, "new"
    settings.EMBEDDING_NEXT_BASE_URL, settings.EMBEDDING_NEXT_MODEL = old.url, "old"
    back = {
        "EMBEDDING_BASE_URL": new.url,
        "EMBEDDING_MODEL": "new",
        "EMBEDDING_NEXT_BASE_URL": old.url,
        "EMBEDDING_NEXT_MODEL": "old",
    }
    code, output = end(start(**back))
    assert (code, spaces()["old"].is_active) == (0, True), output
    assert places(spaces()["old"]) == places(spaces()["new"], WideSentence)
    assert ask("Where is Thing7?", turn).passages[0].text.startswith("Thing7 ")


def test_only_vectors_out_of_use_are_dropped(servers, start, finish):
    say(finish, 3)
    remember()
    assert "only vectors that are in use" in end(start("--drop-old"))[1]
    EmbeddingSpace.objects.create(model="new", dimensions=96)  # being changed to
    EmbeddingSpace.objects.create(model="older", dimensions=64)
    assert "older (64) is not in use" in end(start("--drop-old", "--dry-run"))[1]
    assert spaces().keys() == {"old", "new", "older"}
    assert "0 vectors of older (64) deleted" in end(start("--drop-old"))[1]
    assert spaces().keys() == {"old", "new"}
    assert len(places(spaces()["old"])) == 6


def test_what_the_new_model_refuses_does_not_stop_the_change(servers, start, finish):
    _, new = servers
    say(finish, 70)
    remember()
    new.refused = "Thing9 "
    code, output = end(start())
    assert code == 0, output
    assert "1 memories have nothing that new embeds" in output
    assert spaces()["new"].is_active
    assert len(places(spaces()["old"])) - len(places(spaces()["new"])) == 2


def test_a_model_that_does_not_answer_changes_nothing(servers, start, finish):
    say(finish, 1)
    remember()
    code, output = end(start(EMBEDDING_NEXT_BASE_URL="http://127.0.0.1:9/v1"))
    assert code == 1
    assert "new does not answer: no connection" in output
    assert spaces().keys() == {"old"}
