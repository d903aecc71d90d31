"""Simple messages, and all of them once a budget asks for it, go to the version's cheaper model first."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from agents.access import anonymous, editor
from agents.chat.question import Question
from agents.chat.routing import route, route_by_rule, rule_in_words, sparing_now, word_in
from agents.versions.live import Answering, ModelChoice, ProviderSnapshot, load_draft
from observability.budgets import budgets_now
from observability.models import Attempt, Budget, BudgetPeriod, ModelPrice, SavedBy
from observability.sparing import list_sparing
from tests.factories import make_key, make_provider, make_version, unique
from tests.upstream import Refusal, Reply

SECONDS = {
    "connect_timeout_s": 1.0,
    "first_token_timeout_s": 1.0,
    "between_tokens_timeout_s": 1.0,
    "total_timeout_s": 1.0,
}


def choice(model, slug="vendor", *, is_demo=False):
    address = "http://127.0.0.1:9/v1"
    return ModelChoice(ProviderSnapshot(slug=slug, base_url=address, key_variable="", encrypted_key="", is_demo=is_demo, **SECONDS), model)


LARGE, OTHER, SMALL = choice("large"), choice("other", "spare"), choice("small")


def answering(**fields):
    return Answering(
        **{
            "slug": "helper", "name": "Helper", "description": "", "access": "public", "number": 1, "system_prompt": "Help.",
            "greeting": "", "choices": (LARGE, OTHER), "temperature": None, "top_p": None, "max_output_tokens": 100,
            "prompt_budget_tokens": 1000, "simple": SMALL, "simple_max_chars": 20, "simple_not_words": ("refund", "my lawyer"), **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "models", "why"),
    [
        ("Hello!", ["small", "large", "other"], "small at vendor answers: the message is simple."),
        ("x" * 20, ["small", "large", "other"], "small at vendor answers: the message is simple."),
        ("  " + "x" * 20 + "\n", ["small", "large", "other"], "small at vendor answers: the message is simple."),
        ("x" * 21, ["large", "other"], "large at vendor answers: it has 21 characters, and a simple message has at most 20."),
        ("A REFUND, please", ["large", "other"], "large at vendor answers: the message contains “refund”."),
        ("ask My\n Lawyer!", ["large", "other"], "large at vendor answers: the message contains “my lawyer”."),
        ("two refunds", ["small", "large", "other"], "small at vendor answers: the message is simple."),
    ],
)
def test_a_message_is_simple_where_it_is_short_and_has_none_of_the_words(message, models, why):
    found = route_by_rule(answering(), message)
    assert [it.model for it in found.answering.choices] == models
    assert (found.why, found.saved_by) == (why, SavedBy.ROUTING if models[0] == "small" else SavedBy.NOTHING)


def test_a_cheaper_model_that_is_among_the_fallbacks_is_asked_once():
    assert route_by_rule(answering(simple=OTHER), "Hello!").answering.choices == (OTHER, LARGE)


def test_the_demo_model_steps_in_for_no_cheaper_one():
    demo = choice("demo", is_demo=True)
    assert route_by_rule(answering(choices=(demo,)), "Hello!").answering.choices == (SMALL,)


@pytest.mark.parametrize(
    ("message", "word", "is_in"),
    [
        ("Die RÜCKGABE bitte", "rückgabe", True),
        ("die Ru\u0308ckgabe", "Rückgabe", True),
        ("STRASSE 7", "straße", True),
        ("why?", "?", True),
        ("is 5.5 right", "5.5", True),
        ("is 535 right", "5.5", False),
        ("some_refund_id", "refund", False),
        ("refund-policy", "refund", True),
        ("我想退款谢谢", "退款", True),
        ("환불을 원해요", "환불", True),
        ("anything", "  ", False),
        ("a+b", "a+b", True),
    ],
)
def test_words_are_found_whole_in_any_script(message, word, is_in):
    assert bool(word_in(message, [word])) is is_in


def test_the_rule_reads_as_a_sentence():
    assert rule_in_words(answering()) == (
        "Messages of at most 20 characters that contain none of “refund”, “my lawyer” are answered by small at vendor, "
        "all others by large at vendor."
    )
    assert rule_in_words(answering(simple_not_words=())).startswith("Messages of at most 20 characters are answered by small")
    assert "“w7” and 2 more are" in rule_in_words(answering(simple_not_words=tuple(f"w{n}" for n in range(10))))
    assert rule_in_words(answering(simple_max_chars=0)) == (
        "large at vendor answers every message; small at vendor does once a budget asks for cheaper models."
    )
    assert rule_in_words(answering(simple=None)) == "There is no cheaper model: large at vendor answers every message."
    assert rule_in_words(answering(choices=())) == "No model is set up yet."


# --- budgets that ask for cheaper models ------------------------------------------------------------------------------


@pytest.fixture
def spent(db):
    """`spent(usd, cheaper_at=80)` makes a budget of 10 dollars or 1,000 tokens a month of which so much is spent."""

    def spent(usd="0", *, tokens=0, subject_id=0, cheaper_at=80, **fields):
        fields = {"name": unique("budget"), "limit_usd": Decimal(10), "limit_tokens": 1000, "cheaper_at": cheaper_at, **fields}
        budget = Budget.objects.create(**fields)
        first = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        BudgetPeriod.objects.create(
            budget=budget, subject_id=subject_id, starts_at=first, ends_at=after, spent_usd=Decimal(usd), spent_tokens=tokens
        )
        return budget

    return spent


@pytest.mark.parametrize(
    ("usd", "tokens", "fields", "asks"),
    [
        ("7.99", 799, {}, False),
        ("8", 0, {}, True),
        ("0", 800, {}, True),
        ("9", 0, {"cheaper_at": None}, False),
        ("9", 0, {"is_active": False}, False),
        ("9", 0, {"limit_usd": None}, False),
        ("9", 0, {"period": "day", "time_zone": "Asia/Tokyo"}, False),
    ],
    ids=["below", "at", "tokens", "never", "off", "no limit in dollars", "another period's"],
)
def test_a_budget_asks_for_cheaper_models_from_its_share_on(spent, usd, tokens, fields, asks):
    budget = spent(usd, tokens=tokens, **fields)
    assert list_sparing() == ({budget.pk: None} if asks else {})


def test_one_query_finds_all_budgets_that_ask(spent, django_assert_num_queries):
    for subject_id in range(1, 4):
        spent("9", scope="user", subject_id=subject_id)
    spent("9")
    with django_assert_num_queries(1):
        found = list_sparing()
    assert set(found.values()) == {None, frozenset({1}), frozenset({2}), frozenset({3})}


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({}, True),
        ({"scope": "agent", "agent": "helper"}, True),
        ({"scope": "agent", "agent": "another"}, False),
        ({"scope": "key", "key": "k7"}, False),
        ({"scope": "user"}, False),
    ],
)
def test_every_message_goes_to_the_cheaper_model_once_a_budget_that_applies_asks(live_db, fields, asks, monkeypatch):
    budget = Budget(pk=1, name="team", limit_tokens=1, cheaper_at=80, **fields)
    monkeypatch.setattr(sparing_now, "_known", (float("inf"), {1: frozenset() if budget.scope == "user" else None}))
    monkeypatch.setattr(budgets_now, "_known", (float("inf"), [budget]))
    question = Question(agent="helper", message="A refund, please: " + "x" * 100, caller=anonymous("::1"))
    found = asyncio.run(route(question, answering()))
    assert found.answering.choices[0].model == ("small" if asks else "large")
    assert found.saved_by is (SavedBy.BUDGET if asks else SavedBy.NOTHING)
    if asks:
        assert found.why == "small at vendor answers: the budget “team” asks for cheaper models."


# --- with the real server ---------------------------------------------------------------------------------------------


@pytest.fixture
def routed(make_chat_agent, upstream):
    """An agent whose large model costs 10 dollars a million tokens, and whose small one 1."""

    def routed(**fields):
        fields = {"simple_model": "small", "simple_max_chars": 20, "simple_not_words": ["refund"], "reply_cache_s": 0, **fields}
        agent = make_chat_agent(upstream, model="large", **fields)
        for model, usd in (("large", 10), ("small", 1)):
            ModelPrice.objects.create(
                provider=agent.live_version.provider.slug,
                model=model,
                effective_from=datetime(2020, 1, 1, tzinfo=UTC),
                input_usd=Decimal(usd),
                output_usd=Decimal(usd),
            )
        return agent

    return routed


@pytest.fixture
def fresh(start_server):
    """A client of a server that has read no prices yet: they are looked at again only every few seconds."""
    with start_server().client() as client:
        yield client


def ask(client, agent, message, **fields):
    response = client.post(f"/api/chat/{agent.slug}", json={"message": message, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_simple_message_is_answered_by_the_cheaper_model_and_the_ledger_says_what_it_saved(routed, upstream, fresh):
    upstream.script(Reply("Hi.", usage=(900, 100)), Reply("Well.", usage=(900, 100)))
    agent = routed()
    simple, other = ask(fresh, agent, "Hello!"), ask(fresh, agent, "A refund!")
    assert (simple["model"], other["model"]) == ("small", "large")
    assert [call.body["model"] for call in upstream.calls] == ["small", "large"]
    assert (Decimal(simple["usage"]["cost_usd"]), Decimal(simple["usage"]["saved_usd"])) == (Decimal("0.001"), Decimal("0.009"))
    assert (Decimal(other["usage"]["cost_usd"]), Decimal(other["usage"]["saved_usd"])) == (Decimal("0.01"), 0)
    rows = Attempt.objects.filter(agent=agent.slug).order_by("started_at").values_list("model", "saved_usd", "saved_by")
    assert list(rows) == [("small", Decimal("0.009"), "routing"), ("large", 0, "")]


def test_the_own_model_answers_where_the_cheaper_one_cannot(routed, upstream, fresh):
    upstream.script(Refusal(status=400), Reply("Here.", usage=(900, 100)))
    agent = routed()
    answer = ask(fresh, agent, "Hello!")
    assert (answer["model"], Decimal(answer["usage"]["saved_usd"])) == ("large", 0)
    rows = Attempt.objects.filter(agent=agent.slug).order_by("number").values_list("number", "model", "outcome", "saved_usd", "saved_by")
    assert list(rows) == [(1, "small", "failed", 0, ""), (2, "large", "done", 0, "")]


def test_nothing_is_known_to_be_saved_without_both_prices(routed, upstream, fresh):
    upstream.script(Reply("Hi.", usage=(900, 100)))
    agent = routed()
    ModelPrice.objects.filter(provider=agent.live_version.provider.slug, model="large").delete()
    ask(fresh, agent, "Hello!")
    row = Attempt.objects.get(agent=agent.slug)
    assert (row.model, row.saved_usd, row.saved_by) == ("small", 0, "routing")


def test_a_cheaper_model_that_is_dearer_saves_nothing(routed, upstream, fresh):
    upstream.script(Reply("Hi.", usage=(900, 100)))
    agent = routed()
    ModelPrice.objects.filter(provider=agent.live_version.provider.slug, model="small").update(input_usd=50, output_usd=50)
    assert Decimal(ask(fresh, agent, "Hello!")["usage"]["saved_usd"]) == 0


def test_an_end_user_whose_budget_runs_low_gets_the_cheaper_model_and_others_do_not(routed, upstream, start_server):
    upstream.script(Reply("Well.", usage=(900, 100)))
    agent = routed(prompt_budget_tokens=1000, max_output_tokens=100)
    key = make_key(agent)
    budget = Budget.objects.create(name=unique("budget"), scope="user", agent=agent.slug, limit_usd=Decimal("0.1"), cheaper_at=10)
    message = "A refund, please: the parcel never came."
    with start_server().client(headers={"Authorization": f"Bearer {key.secret}"}) as client:
        assert ask(client, agent, message, user="ada")["model"] == "large"
        assert BudgetPeriod.objects.get(budget=budget).spent_usd == Decimal("0.01")
        time.sleep(1.2)  # how long what is known of budgets may be old
        saved = ask(client, agent, message, user="ada")
        assert (saved["model"], ask(client, agent, message, user="bob")["model"]) == ("small", "large")
    assert Decimal(saved["usage"]["saved_usd"]) == Decimal("0.009")
    assert Attempt.objects.get(agent=agent.slug, model="small").saved_by == "budget"


@pytest.mark.parametrize(("on_unknown_price", "model"), [("refuse", "large"), ("allow", "small")])
def test_no_cheaper_model_of_unknown_price_where_a_budget_would_refuse_it(routed, upstream, fresh, on_unknown_price, model):
    upstream.script(Reply("Hi."))
    agent = routed(prompt_budget_tokens=1000, max_output_tokens=100)
    ModelPrice.objects.filter(provider=agent.live_version.provider.slug, model="small").delete()
    Budget.objects.create(name=unique("budget"), scope="agent", agent=agent.slug, limit_usd=Decimal(10), on_unknown_price=on_unknown_price)
    assert ask(fresh, agent, "Hello!")["model"] == model


def test_an_answer_of_the_cheaper_model_is_kept_like_any_other(routed, upstream, fresh):
    upstream.script(Reply("Hi.", usage=(900, 100)))
    agent = routed(reply_cache_s=60)
    first, second = ask(fresh, agent, "Hello!"), ask(fresh, agent, "Hello!")
    assert [(answer["model"], answer["cached"]) for answer in (first, second)] == [("small", False), ("small", True)]
    rows = Attempt.objects.filter(agent=agent.slug).order_by("started_at").values_list("saved_usd", "saved_by")
    assert list(rows) == [(Decimal("0.009"), "routing"), (Decimal("0.001"), "cache")]


def test_a_draft_is_routed_as_it_will_be(routed, upstream):
    upstream.script(Reply("Hi."))
    agent = routed(simple_model="")
    make_version(agent, published=False, simple_model="small")
    question = Question(agent=agent.slug, message="Hello!", caller=editor(1), draft=True)
    assert asyncio.run(route(question, load_draft(agent.slug))).answering.choices[0].model == "small"


def test_the_cheaper_model_may_be_another_providers(make_chat_agent, upstream, open_upstream, api):
    cheap = open_upstream()
    cheap.script(Reply("Hi."))
    agent = make_chat_agent(upstream, simple_provider=make_provider(base_url=cheap.base_url, default_model="tiny"))
    assert ask(api, agent, "Hello!")["model"] == "tiny"
    assert upstream.calls == []
