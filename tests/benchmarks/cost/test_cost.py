"""The benchmark of cost: its ledger is one that the product could have written, and what must not be is complained of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from benchmarks.cost import ledger
from benchmarks.cost.report import as_text, complaints
from observability.models import Attempt

RACE = {
    "limit_usd": "1", "spent_usd": "0.7", "reserved_usd": "0", "ledger_usd": "0.7", "upstream_usd": "0.7", "overshoot_usd": "0",
    "answered": 10, "upstream_calls": 10, "refused": {"status 402": 54},
}  # fmt: skip
CACHED = {
    "ours_per_s": 2000.0, "bare_per_s": 1000.0, "ratio": 2.0, "ours_p50_ms": 1.0, "bare_p50_ms": 1.0, "replies": 5, "stored": 5,
    "upstream_calls": 1, "errors": {},
}  # fmt: skip
REPORTS = {"rows": 10, "summing_s": 1.0, "is_exact": True, "figures": [{"report": "a year", "p50_ms": 1.0, "p95_ms": 2.0}]}


@pytest.mark.django_db(transaction=True)
def test_reports_over_the_made_up_ledger_are_exact(monkeypatch):
    monkeypatch.setattr(ledger, "UNSUMMED", 100)
    found = ledger.measure(1200, 1)
    assert found["is_exact"]
    assert len(found["figures"]) == len(ledger.questions(datetime.now(UTC).date()))
    assert Attempt.objects.count() == 1200
    assert complaints({"reports": found}) == []


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ({"race": RACE | {"overshoot_usd": "0.01"}}, "overspent"),
        ({"race": RACE | {"ledger_usd": "0.63"}}, "do not agree"),
        ({"race": RACE | {"reserved_usd": "0.1"}}, "do not agree"),
        ({"race": RACE | {"refused": {"status 500": 1}}}, "status 500"),
        ({"cached": CACHED | {"upstream_calls": 2}}, "2 times"),
        ({"cached": CACHED | {"stored": 4}}, "4 turns are stored"),
        ({"cached": CACHED | {"errors": {"wrong text": 1}}}, "wrong text"),
        ({"reports": REPORTS | {"is_exact": False}}, "not those of the ledger"),
    ],
)
def test_what_must_not_be_is_complained_of(found, word):
    [complaint] = complaints(found)
    assert word in complaint
    assert f"WRONG: {complaint}" in as_text({"machine": "m", **found, "complaints": [complaint]})


def test_nothing_wrong_is_no_complaint():
    assert complaints({"race": RACE, "cached": CACHED, "reports": REPORTS}) == []
