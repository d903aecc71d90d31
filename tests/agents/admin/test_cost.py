"""The page "Cost": who may see it, what it adds up, and what it draws."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.test import Client

from agents.admin.cost_chart import DayCost, draw_costs
from memory.models import Conversation, Subject
from observability.models import AttemptKind, AttemptOutcome, SavedBy
from tests.factories import make_agent, make_key, make_user
from tests.ledger import NOON, open_attempt, settle, spend

pytestmark = pytest.mark.django_db
SPAN = f"from={NOON.date() - timedelta(days=2)}&to={NOON.date()}"


@pytest.fixture
def cost():
    def cost(query=SPAN, *, role="operator"):
        client = Client()
        client.force_login(make_user(role=role))
        return client.get(f"/admin/cost/?{query}")

    return cost


@pytest.mark.parametrize(("role", "status"), [("operator", 200), ("superuser", 200), ("editor", 403), ("", 302)])
def test_operators_and_superusers_alone_see_it(cost, role, status):
    assert cost(role=role).status_code == status


def test_without_use_it_says_so(cost):
    assert "Nothing used in these days" in cost().content.decode()


def test_it_adds_up_by_agent_model_key_and_conversation(cost):
    agent = make_agent(name="Web shop helper")
    key = make_key(agent, name="production")
    subject = Subject.objects.create(owner="anonymous", name="s")
    conversation = Conversation.objects.create(owner="anonymous", agent=agent.slug, session_id="s", subject=subject)
    spend("2.5", agent=agent.slug, key=key.key.prefix, conversation_id=conversation.pk, subject_id=subject.pk)
    spend("1.25", agent="gone", key="", model="small", started_at=NOON - timedelta(days=1))
    cached = open_attempt(agent=agent.slug)
    settle(cached, outcome=AttemptOutcome.CACHED, prompt_tokens=None, completion_tokens=None, saved_usd=Decimal("0.5"))
    failed = open_attempt(model="small")
    settle(failed, model="small", outcome=AttemptOutcome.FAILED, error_code="upstream-timeout", prompt_tokens=None, completion_tokens=None)
    page = cost()
    total = page.context["total"]
    assert (total.cost, total.saved, total.line.turns, total.tokens) == ("3.75 USD", "0.50 USD", 4, 3_750_000)
    assert page.context["hit_rate"] == "25%"
    tables = {title: {row.title: (row.cost, row.share) for row in rows} for title, _, rows in page.context["tables"]}
    assert tables["Agents"]["Web shop helper"] == ("2.50 USD", "67%")
    assert tables["Agents"]["gone"] == ("1.25 USD", "33%")
    assert tables["Models"]["large"] == ("2.50 USD", "67%")
    assert tables["API keys"]["production"] == ("2.50 USD", "67%")
    assert tables["API keys"]["without a key"] == ("1.25 USD", "33%")
    [row], [person] = (rows for _, _, rows in page.context["dearest"])
    assert row.url == f"/admin/memory/conversation/{conversation.pk}/change/"
    assert (person.title, person.url, person.cost) == (f"#{subject.pk}", f"/admin/memory/subject/{subject.pk}/change/", "2.50 USD")
    assert [bar.column.cells[0] for bar in page.context["chart"].bars] == ["0.00 USD", "1.25 USD", "2.50 USD"]
    text = page.content.decode()
    assert "upstream-timeout" in text
    assert key.secret not in text


def test_an_unknown_price_is_never_nothing(cost):
    settle(open_attempt(price=None), price=None)
    page = cost()
    assert page.context["total"].cost == "unknown"
    assert "1 call has no known price" in page.content.decode()


def test_what_routing_saved_is_shown_less_what_asking_cost_and_trimming_by_itself(cost):
    spend("0.25", kind=AttemptKind.ROUTING)
    spend("1", settled={"saved_by": SavedBy.ROUTING, "saved_usd": Decimal(2), "trimmed_tokens": 3_000_000})
    page = cost()
    total = page.context["total"]
    assert (total.saved_by_routing, total.routing_cost, total.saved_by_routing_net) == ("2.00 USD", "0.25 USD", "1.75 USD")
    assert (total.saved_by_trimming, total.saved_by_caching, total.saved) == ("3.00 USD", "0.00 USD", "2.00 USD")
    text = page.content.decode()
    assert "saved 2.00 USD, less 0.25 USD for asking" in text
    assert "about 3,000,000 tokens" in text


def test_asking_that_did_not_pay_is_said(cost):
    spend("0.25", kind=AttemptKind.ROUTING)
    assert cost().context["total"].saved_by_routing_net == "-0.25 USD"


def test_this_month_and_its_forecast_where_no_days_are_chosen(cost):
    spend("1", started_at=datetime.now(UTC))
    assert cost("").context["forecast"].endswith(" USD")
    assert cost(SPAN).context["forecast"] == ""


@pytest.mark.parametrize("query", ["from=soon", "from=2026-11-03&to=2026-11-01", "from=2020-01-01&to=2026-11-01"])
def test_days_that_make_no_sense_are_said_and_this_month_is_shown(cost, query):
    page = cost(query)
    assert page.status_code == 200
    assert page.context["wrong"]
    assert page.context["first"] == datetime.now(UTC).date().replace(day=1)


def test_csv(cost):
    spend("2.5", agent="=evil")
    answer = cost(f"{SPAN}&format=csv")
    assert answer["Content-Disposition"].startswith("attachment")
    [row] = csv.DictReader(io.StringIO(answer.content.decode()))
    assert (row["day"], row["agent"], row["model"], row["cost_usd"]) == (str(NOON.date()), "'=evil", "large", "2.5")


@pytest.mark.parametrize("highest", ["0", "0.0000007", "0.2184", "1", "3.99", "4.01", "100", "12345"])
def test_no_bar_is_higher_than_the_axis(highest):
    chart = draw_costs([DayCost(day=NOON.date(), cost_usd=Decimal(cost), saved_usd=Decimal(0), turns=1) for cost in ("0", highest)])
    tops = [y for y, _ in chart.ticks]
    assert min(tops) <= chart.bars[1].y <= chart.baseline
    assert chart.bars[0].height == 0
    assert 2 <= len(chart.ticks) <= 6
    assert len({label for _, label in chart.ticks}) == len(chart.ticks)
