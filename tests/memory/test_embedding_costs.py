"""What embedding costs: every call of a vendor is in the ledger, within budgets, and never in the way of a chat."""

import asyncio
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from memory import recall as recalling
from memory.browsing import agent_owner
from memory.curating import add
from memory.embedders import cache, costs
from memory.embedders.client import EmbeddingFailed, embed, embedding_model
from memory.embedders.configured import PROVIDER, list_models_in_use
from memory.embedders.costs import Payer, charged_to, finish_settling
from memory.embedders.failures import EmbeddingRefused
from memory.models import EmbeddingSpace, Sentence, Turn
from memory.recall import recall
from memory.sources import Whose
from memory.wishes import Outcome, Room, Wish
from memory.writing import remember_due_turns
from observability.api import budgets_now
from observability.errors import Unavailable
from observability.models import Attempt, AttemptKind, Budget, BudgetPeriod, ModelPrice, PriceSource
from observability.outbound import close_transports
from observability.prices import price_list
from tests.factories import unique
from tests.memory.embedding_server import EmbeddingServer

pytestmark = pytest.mark.usefixtures("live_db")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_waits(live_db, settings, monkeypatch):
    settings.MEMORY_DEADLINE_MS = 60_000
    monkeypatch.setattr(cache, "DEADLINE_S", 30.0)
    Turn.objects.filter(remember=True, remembered_at=None).update(remembered_at=datetime.now(UTC))
    Sentence.objects.all().delete()
    EmbeddingSpace.objects.all().delete()


@pytest.fixture
def server(settings):
    """A vendor's embeddings, of a model that nobody else has."""
    server = EmbeddingServer(dimensions=64)
    server.model = unique("model")
    settings.OUTBOUND_ALLOWED_HOSTS = [server.address]
    settings.EMBEDDER_URL = settings.OPENAI_API_KEY = ""
    settings.EMBEDDING_BASE_URL, settings.EMBEDDING_MODEL = server.url, server.model
    yield server
    server.stop()
    Sentence.objects.all().delete()
    EmbeddingSpace.objects.all().delete()


@pytest.fixture
def price(server):
    """A hundred US dollars per million tokens."""
    ModelPrice.objects.create(
        provider=PROVIDER, model=server.model, source=PriceSource.MANUAL, effective_from=LONG_AGO, input_usd=100, output_usd=0
    )
    price_list.forget()


@pytest.fixture
def make_budget():
    """Make a budget that holds at once: `make_budget(limit_tokens=0)`."""
    made = []

    def make(**fields):
        made.append(Budget.objects.create(name=unique("budget"), **{"limit_usd": None, **fields}))
        budgets_now.forget()
        return made[-1]

    yield make
    for budget in made:
        budget.delete()
    budgets_now.forget()


def run(task):
    async def to_the_end():
        try:
            return await task
        finally:
            await finish_settling()
            await close_transports()

    return asyncio.run(to_the_end())


def remember(finish, *said, **fields):
    """Have a person say some things, and remember them; return the last turn."""
    person = unique("person")
    turns = [finish(message, "Noted.", subject=person, session=unique("s"), **fields) for message in said]
    run(remember_due_turns(embedding_model()))
    return Turn.objects.get(pk=turns[-1])


def ask(question, turn, **fields):
    whose = Whose(agent=turn.agent, conversation_id=turn.conversation_id)
    return run(recall(Wish(**{"question": question, "whose": whose, "limit": 5, "room": Room(200), "tokens_of": lambda p: 1, **fields})))


def calls_of(server):
    return list(Attempt.objects.filter(model=server.model).order_by("id"))


def test_a_call_costs_what_the_vendor_reports(server, price):
    run(embed(["one two three", "four five"], model=embedding_model()))
    [call] = calls_of(server)
    assert (call.kind, call.provider, call.outcome) == (AttemptKind.EMBEDDING, PROVIDER, "done")
    assert (call.prompt_tokens, call.completion_tokens, call.is_estimated) == (5, 0, False)
    assert call.cost_usd == Decimal("0.0005")
    assert call.turn_id is None
    assert call.latency_ms is not None


@pytest.mark.parametrize("usage", [{}, {"usage": None}, *({"usage": {"prompt_tokens": told}} for told in (0, -1, 2**40, "3", None))])
def test_what_a_vendor_does_not_report_is_estimated(server, price, usage):
    answer = server.answer
    server.answer = lambda texts: (200, {**{key: value for key, value in answer(texts)[1].items() if key != "usage"}, **usage})
    run(embed(["one two three"], model=embedding_model()))
    [call] = calls_of(server)
    assert call.is_estimated
    assert call.prompt_tokens == 3


def test_a_call_is_in_the_ledger_before_it_is_made(server, price):
    seen = []
    answer = server.answer
    server.answer = lambda texts: (seen.append(outcomes_of(server)), answer(texts))[1]
    run(embed(["one"], model=embedding_model()))
    assert seen == [["running"]]


def outcomes_of(server):
    """As the server's own thread sees them."""
    try:
        return [call.outcome for call in calls_of(server)]
    finally:
        connection.close()


def test_each_request_of_many_texts_is_a_call_of_its_own(server):
    run(embed([f"text {number}" for number in range(300)], model=embedding_model()))
    assert [call.prompt_tokens for call in calls_of(server)] == [512, 88]
    assert server.calls == 2


def test_of_unknown_price_the_cost_is_unknown_and_not_0(server):
    run(embed(["one"], model=embedding_model()))
    assert calls_of(server)[0].cost_usd is None


def test_what_the_vendor_refuses_costs_nothing(server, price):
    server.refused = "bad"
    with pytest.raises(EmbeddingFailed):
        run(embed(["bad"], model=embedding_model()))
    [call] = calls_of(server)
    assert (call.outcome, call.prompt_tokens, call.cost_usd) == ("failed", None, 0)


def test_a_vendor_out_of_reach_costs_nothing(server, price):
    server.stop()
    with pytest.raises(EmbeddingFailed):
        run(embed(["one"], model=embedding_model()))
    assert [(call.outcome, call.cost_usd) for call in calls_of(server)] == [("failed", 0)]


def test_a_call_that_nobody_waited_for_is_estimated_and_not_free(server, price):
    server.delay_s = 60
    with pytest.raises(EmbeddingFailed, match="no answer within"):
        run(embed(["one two three"], model=embedding_model(), timeout_s=2))
    [call] = calls_of(server)
    assert (call.outcome, call.is_estimated, call.prompt_tokens) == ("cancelled", True, 3)


def test_a_call_is_counted_with_its_tokens_and_cost(server, price):
    agent = unique("agent")

    async def embed_for_agent():
        with charged_to(Payer(agent=agent)):
            await embed(["one two three"], model=embedding_model())

    run(embed_for_agent())
    labels = {"provider": PROVIDER, "model": server.model, "outcome": "done"}
    assert REGISTRY.get_sample_value("chatbot_upstream_attempts_total", labels) == 1
    assert REGISTRY.get_sample_value("chatbot_tokens_total", {"agent": agent, "model": server.model, "kind": "prompt"}) == 3
    assert REGISTRY.get_sample_value("chatbot_cost_usd_total", {"agent": agent, "model": server.model}) == pytest.approx(0.0003)


def test_what_is_in_the_cache_is_no_call(server, settings):
    settings.EMBEDDING_CACHE_S = 300

    async def twice():
        await embed(["one"], model=embedding_model())
        async with asyncio.timeout(60):
            while not await cache.fetch(["one"], model=embedding_model()):  # noqa: ASYNC110 - it is kept in the background
                await asyncio.sleep(0.02)
        await embed(["one"], model=embedding_model())

    run(twice())
    assert len(calls_of(server)) == server.calls == 1


def test_the_built_in_embedder_is_in_no_ledger(embedder):
    run(embed(["one"], model=embedder))
    assert not Attempt.objects.filter(provider=PROVIDER, model=embedder.name).exists()


def test_writing_is_accounted_for(server, price, finish):
    remember(finish, "My dog is called Biscuit.")
    calls = calls_of(server)
    assert calls
    assert sum(call.prompt_tokens for call in calls) == sum(len(text.split()) * count for text, count in server.texts.items())


def test_the_question_of_a_chat_is_accounted_for_with_its_agent_and_conversation(server, price, finish):
    turn = remember(finish, "My dog is called Biscuit.", "I live in Lisbon.", agent=unique("agent"))
    before = len(calls_of(server))
    assert ask("What is my dog called?", turn).passages
    [call] = calls_of(server)[before:]
    assert (call.agent, call.conversation_id, call.outcome, call.prompt_tokens) == (turn.agent, turn.conversation_id, "done", 5)


def test_recall_makes_no_further_visit_to_the_database_before_it_asks_the_vendor(server, price, finish, monkeypatch):
    turn = remember(finish, "My dog is called Biscuit.", "I live in Lisbon.")
    visits = []
    monkeypatch.setattr(costs, "_open", lambda *given: visits.append(given))
    assert ask("What is my dog called?", turn).passages
    assert not visits


def test_what_was_promised_for_a_question_is_given_back_where_the_prompt_has_no_room(server, price, finish):
    turn = remember(finish, "My dog is called Biscuit.", "I live in Lisbon.")
    before, asked = len(calls_of(server)), server.calls
    assert ask("What is my dog called?", turn, room=lambda: Room(0)).outcome == Outcome.EMPTY
    assert [(call.outcome, call.cost_usd) for call in calls_of(server)[before:]] == [("cancelled", 0)]
    assert server.calls == asked


def test_nothing_is_promised_where_the_prompt_may_hold_all_there_is(server, price, finish):
    turn = remember(finish, "My dog is called Biscuit.")
    before = len(calls_of(server))
    assert ask("What is my dog called?", turn, in_view=[turn.pk], room=lambda: Room(200, frozenset({turn.pk}))).outcome == Outcome.EMPTY
    assert len(calls_of(server)) == before
    assert ask("What is my dog called?", turn, in_view=[turn.pk], room=lambda: Room(200)).passages
    assert [call.outcome for call in calls_of(server)[before:]] == ["done"]


def test_a_question_from_the_cache_is_settled_as_nothing(server, price, finish, settings):
    settings.EMBEDDING_CACHE_S = 300
    turn = remember(finish, "My dog is called Biscuit.", "I live in Lisbon.")
    question = f"What is my {unique('dog')} called?"
    assert ask(question, turn).passages
    calls = server.calls
    assert ask(question, turn).passages
    assert server.calls == calls
    last = calls_of(server)[-1]
    assert (last.outcome, last.prompt_tokens, last.cost_usd) == ("cancelled", None, 0)


def test_a_recall_that_is_too_slow_gives_back_what_it_promised(server, price, finish, settings, monkeypatch):
    turn = remember(finish, "My dog is called Biscuit.", "I live in Lisbon.")
    find, before, is_over = recalling._find, len(calls_of(server)), threading.Event()

    def find_slowly(*given, **named):
        found = find(*given, **named)
        is_over.wait(60)
        return found

    def is_settled():
        try:
            return any(call.outcome != "running" for call in calls_of(server)[before:])
        finally:
            connection.close()

    async def ask_and_wait():
        whose = Whose(agent=turn.agent, conversation_id=turn.conversation_id)
        recalled = await recall(Wish(question="What is my dog called?", whose=whose, limit=5, room=Room(200), tokens_of=lambda _: 1))
        is_over.set()
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(is_settled):  # noqa: ASYNC110 - in the background
                await asyncio.sleep(0.02)
        return recalled

    monkeypatch.setattr(recalling, "_find", find_slowly)
    settings.MEMORY_DEADLINE_MS = 2000
    assert run(ask_and_wait()).outcome == Outcome.SLOW
    last = calls_of(server)[-1]
    assert (last.outcome, last.cost_usd) == ("cancelled", 0)


def test_a_spent_budget_means_a_chat_without_memory(server, price, finish, make_budget):
    turn = remember(finish, "My dog is called Biscuit.", "I live in Lisbon.")
    budget, calls = make_budget(limit_usd=0), server.calls
    with capture_logs() as logs:
        recalled = ask("What is my dog called?", turn)
    assert (recalled.outcome, recalled.passages) == (Outcome.FAILED, ())
    assert budget.name in recalled.failure
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["memory recall failed"]
    assert server.calls == calls


def test_writing_waits_for_a_budget(server, price, finish, make_budget):
    budget = make_budget(limit_usd=0)
    turn = finish("My dog is called Biscuit.")
    with pytest.raises(EmbeddingRefused, match=budget.name):
        run(remember_due_turns(embedding_model()))
    assert (Turn.objects.get(pk=turn).remembered_at, server.calls) == (None, 0)
    budget.limit_usd = 1_000_000  # other tests have spent some of it
    budget.save()
    run(remember_due_turns(embedding_model()))
    assert Turn.objects.get(pk=turn).remembered_at


def test_a_note_says_which_budget_leaves_no_room(server, price, make_budget):
    budget = make_budget(limit_usd=0)
    with pytest.raises(Unavailable, match=budget.name):
        run(add(agent_owner(unique("agent")).pk, text="We close at noon.", author="editor"))


def test_a_budget_in_money_refuses_an_unknown_price(server, make_budget):
    make_budget(limit_usd=100)
    with pytest.raises(EmbeddingRefused, match="unknown price"):
        run(embed(["one"], model=embedding_model()))
    assert server.calls == 0


def test_what_was_promised_is_given_back(server, price, make_budget):
    budget = make_budget(limit_usd=1, scope="agent", agent=unique("agent"))
    with charged_to(Payer(agent=budget.agent)):
        run(embed(["one two three"], model=embedding_model()))
    [period] = BudgetPeriod.objects.filter(budget=budget)
    assert (period.spent_usd, period.spent_tokens, period.reserved_usd, period.reserved_tokens) == (Decimal("0.0003"), 3, 0, 0)


def test_many_at_once_never_exceed_a_budget(server, price, make_budget):
    budget = make_budget(limit_tokens=30, scope="agent", agent=unique("agent"))

    async def race():
        calls = (embed([f"one two {number}"], model=embedding_model()) for number in range(20))
        return await asyncio.gather(*calls, return_exceptions=True)

    with charged_to(Payer(agent=budget.agent)):
        results = run(race())
    assert {type(result) for result in results} == {list, EmbeddingRefused}
    [period] = BudgetPeriod.objects.filter(budget=budget)
    assert (period.spent_tokens, period.reserved_tokens) == (3 * server.calls, 0)
    assert period.spent_tokens <= 30


def test_a_model_of_no_name_known_to_openai_is_calibrated_by_what_it_reports(server):
    for number in range(6):
        run(embed([f"supercalifragilistic antidisestablishmentarianism {number}"], model=embedding_model()))
    assert all(call.counted_prompt_tokens > call.prompt_tokens for call in calls_of(server))


def test_the_models_of_the_settings_are_those_of_prices(server):
    assert (PROVIDER, server.model) in {(model.provider, model.model) for model in list_models_in_use()}
