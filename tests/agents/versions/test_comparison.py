"""What differs between versions, as the history and the command line show it."""

from __future__ import annotations

import time

from agents.versions.comparison import DiffLine, compare, diff_lines
from agents.versions.content import write_fallbacks
from agents.versions.drafts import draft_of, start_draft
from tests.factories import make_agent, make_provider, make_version


def test_equal_versions_have_no_changes(db: None) -> None:
    agent = make_agent(greeting="Hi", temperature=1.0)
    assert agent.live_version is not None
    assert compare(agent.live_version, start_draft(agent, author=None)) == []


def test_each_changed_field_is_named_in_the_words_of_the_form(db: None) -> None:
    agent = make_agent(temperature=None, memory_enabled=False, memory_scope="user")
    old, provider = agent.live_version, make_provider()
    new = make_version(agent, temperature=0.5, memory_enabled=True, memory_scope="session", provider=provider)
    changes = {change.field: change for change in compare(old, new)}
    assert set(changes) == {"temperature", "memory_enabled", "memory_scope", "provider"}
    assert (changes["temperature"].old, changes["temperature"].new) == ("default", "0.5")
    assert (changes["memory_enabled"].old, changes["memory_enabled"].new) == ("off", "on")
    assert changes["memory_scope"].new == "this conversation"
    assert changes["provider"].new == provider.slug
    assert changes["memory_enabled"].label == "Long-term memory"


def test_what_is_switched_off_by_an_empty_field_is_called_off(db: None) -> None:
    agent = make_agent()
    new = make_version(agent, reply_similarity=0.95)
    [change] = compare(agent.versions.get(number=1), new)
    assert (change.field, change.old, change.new) == ("reply_similarity", "off", "0.95")


def test_collections_and_models_for_summaries_are_compared(db: None) -> None:
    agent, provider = make_agent(knowledge=["handbook"]), make_provider()
    new = make_version(agent, knowledge=["handbook", "prices"], summary_provider=provider, summary_model="small")
    changes = {change.field: (change.old, change.new) for change in compare(agent.versions.get(number=1), new)}
    assert changes == {
        "knowledge": ("handbook", "handbook, prices"),
        "summary_provider": ("default", provider.slug),
        "summary_model": ("default", "small"),
    }


def test_fallbacks_are_compared_in_order(db: None) -> None:
    agent, spare = make_agent(), make_provider()
    old = agent.live_version
    new = start_draft(agent, author=None)
    write_fallbacks(new, fallbacks=[(spare.pk, "one"), (spare.pk, "")])
    (change,) = compare(old, new)
    assert change.old == "none"
    assert change.new == f"1. {spare.slug}: one\n2. {spare.slug}: its default model"


def test_the_first_version_is_compared_with_nothing(db: None) -> None:
    agent = make_agent(system_prompt="Be kind.\nBe brief.", greeting="")
    assert agent.live_version is not None
    changes = {change.field: change for change in compare(None, agent.live_version)}
    assert changes["system_prompt"].diff == (DiffLine("added", "Be kind."), DiffLine("added", "Be brief."))
    assert "greeting" not in changes


def test_a_diff_shows_changed_lines_and_their_neighbours() -> None:
    old = "\n".join(f"line {n}" for n in range(20))
    assert diff_lines(old, old.replace("line 10", "line ten")) == (
        DiffLine("gap", ""),
        DiffLine("same", "line 8"),
        DiffLine("same", "line 9"),
        DiffLine("removed", "line 10"),
        DiffLine("added", "line ten"),
        DiffLine("same", "line 11"),
        DiffLine("same", "line 12"),
        DiffLine("gap", ""),
    )


def test_even_a_line_break_at_the_end_shows() -> None:
    assert diff_lines("one", "one\n") == (DiffLine("same", "one"), DiffLine("added", ""))
    assert diff_lines("one\n", "two\n") == (DiffLine("removed", "one"), DiffLine("added", "two"))


def test_the_longest_texts_are_compared_quickly() -> None:
    texts = [
        ("a\nb\n" * 25_000, "b\na\n" * 25_000),
        ("".join(f"{n}\n" for n in range(2_400)), "".join(f"{n * 7 % 2400}\n" for n in range(2_400))),
    ]
    for old, new in texts:
        started = time.monotonic()
        assert diff_lines(old, new)
        assert time.monotonic() - started < 20


def test_a_first_version_replaces_nothing(db: None) -> None:
    agent = make_agent(temperature=0.3, published=False)
    assert {change.old for change in compare(None, draft_of(agent))} == {""}
