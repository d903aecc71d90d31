"""Agents as files: what goes out comes back exactly, and what is wrong is named."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.models import Agent, AgentVersion
from agents.versions.documents import apply_document, export_agent, read_document
from agents.versions.formats import FORMATS, MAX_CHARS, dump
from agents.versions.schema import AgentDocument, DocumentError, Fallback, Memory
from tests.factories import make_agent, make_provider, unique

PROVIDER = "in-files"
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80) | st.sampled_from(
    [
        "yes",
        "1.5",
        "null",
        "- a",
        "a: b",
        "# no comment",
        " leads",
        "trails ",
        "\n",
        "a\n\nb\n",
        "\n a",
        "a\n ",
        "|",
        "'",
        '"',
        "\x85",
        "\u2028",
        "\ufeff",
        "…",
        "🦉",
    ]
)
floats = st.none() | st.floats(0, 2, allow_nan=False)
documents = st.builds(
    AgentDocument,
    slug=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    name=texts.filter(bool),
    description=texts,
    access=st.sampled_from(["public", "key"]),
    active=st.booleans(),
    system_prompt=texts.filter(str.strip),
    greeting=texts,
    provider=st.sampled_from(["", PROVIDER]),
    model=texts,
    fallbacks=st.lists(st.builds(Fallback, provider=st.sampled_from(["", PROVIDER]), model=texts), max_size=3),
    temperature=floats,
    top_p=st.none() | st.floats(0.01, 1, allow_nan=False),
    max_output_tokens=st.integers(1, 200_000),
    prompt_budget_tokens=st.integers(100, 2_000_000),
    simple_provider=st.sampled_from(["", PROVIDER]),
    simple_model=texts,
    simple_max_chars=st.integers(0, 100_000),
    simple_not_words=st.lists(texts.filter(str.strip), max_size=3),
    classifier_enabled=st.booleans(),
    classifier_provider=st.sampled_from(["", PROVIDER]),
    classifier_model=texts,
    classifier_instruction=texts,
    memory=st.builds(
        Memory,
        enabled=st.booleans(),
        scope=st.sampled_from(["session", "user"]),
        limit=st.integers(0, 50),
        budget_tokens=st.integers(0, 100_000),
        threshold=st.floats(0, 40, allow_nan=False),
        cap=st.integers(0, 10_000_000),
        days=st.integers(0, 36_500),
    ),
    knowledge=st.lists(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True), max_size=3),
    facts_by_model=st.booleans(),
    summaries=st.booleans(),
    summary_provider=st.sampled_from(["", PROVIDER]),
    summary_model=texts,
    conversation_days=st.integers(0, 36_500),
    trace_days=st.integers(0, 365),
    reply_cache_s=st.integers(0, 30 * 86_400),
    reply_similarity=st.none() | st.floats(0.7, 1),
    note=texts,
)


@given(documents, st.sampled_from(FORMATS))
@settings(max_examples=300)
def test_a_written_file_reads_back_exactly(document: AgentDocument, format: str) -> None:
    assert read_document(dump(document, format=format)) == document


@pytest.mark.django_db
@given(document=documents, format=st.sampled_from(FORMATS), published=st.booleans())
@settings(max_examples=60)
def test_an_exported_agent_changes_nothing_when_applied(document: AgentDocument, format: str, published: bool) -> None:
    from django.db import transaction

    with transaction.atomic():
        make_provider(slug=PROVIDER, is_default=True)
        apply_document(document, author=None, publish=published)
        agent = Agent.objects.get(slug=document.slug)
        exported = read_document(export_agent(agent, format=format))
        assert exported == document
        for publish_too in (False, published):
            assert apply_document(exported, author=None, dry_run=True, publish=publish_too).action == "unchanged"
        assert AgentVersion.objects.filter(agent=agent).count() == 1
        transaction.set_rollback(True)


def test_every_content_field_has_its_place_in_the_file() -> None:
    from agents.versions.content import content_fields

    names = set(AgentDocument.model_fields) | {f"memory_{name}" for name in Memory.model_fields}
    assert set(content_fields()) <= names


def test_a_file_reads_well(db: None) -> None:
    agent = make_agent(slug=unique("readable"), name="Readable", system_prompt="You are kind.\n\nBe brief.\n", temperature=0.7)
    text = export_agent(agent)
    assert "system_prompt: |\n  You are kind.\n\n  Be brief.\n" in text
    assert list(yaml.safe_load(text)) == list(AgentDocument.model_fields), "always in the same order"
    assert text.splitlines()[0] == f"slug: {agent.slug}"


def test_absent_fields_have_the_forms_defaults() -> None:
    document = read_document("slug: a\nname: A\nsystem_prompt: Hello\n")
    version = AgentVersion()
    assert (document.max_output_tokens, document.reply_cache_s) == (version.max_output_tokens, version.reply_cache_s)
    assert (document.memory.scope, document.access, document.active) == ("user", "public", True)
    assert (document.memory.threshold, document.memory.cap, document.memory.days) == (version.memory_threshold, 5000, 0)
    assert (document.knowledge, document.summaries, document.facts_by_model, document.conversation_days) == ([], False, False, 0)


def document(**fields: Any) -> str:
    return json.dumps({"slug": "a", "name": "A", "system_prompt": "Hello"} | fields)


@pytest.mark.parametrize(
    ("text", "field", "remedy"),
    [
        (document(colour="red"), "colour", "no such field"),
        (document(memory={"depth": 1}), "memory.depth", "use one of enabled, scope, limit, budget_tokens, threshold, cap, days"),
        (document(fallbacks=[{"provider": ""}, {"name": "x"}]), "fallbacks.2.name", "use one of provider, model"),
        (document(fallbacks="x"), "fallbacks", "Write a list"),
        (document(fallbacks=[{}] * 6), "fallbacks", "At most 5"),
        (document(fallbacks=[{"model": "x" * 201}]), "fallbacks.1.model", "Shorten it"),
        (document(name=5), "name", "put it in quotes"),
        ("slug: a\nname: yes\nsystem_prompt: x", "name", "put it in quotes"),
        ("slug: 2026-01-01\nname: x\nsystem_prompt: x", "slug", "put it in quotes"),
        (document(active="yes"), "active", "Write true or false"),
        (document(active=1), "active", "Write true or false"),
        (document(temperature="0.7"), "temperature", "without quotes"),
        (document(temperature=True), "temperature", "without quotes"),
        (document(temperature=2.1), "temperature", "at most 2"),
        (document(temperature=-0.1), "temperature", "at least 0"),
        (document(top_p=0), "top_p", "at least 0.01"),
        ("slug: a\nname: x\nsystem_prompt: x\ntemperature: .inf", "temperature", "Write a number"),
        ("slug: a\nname: x\nsystem_prompt: x\ntemperature: .nan", "temperature", "Write a number"),
        (document(max_output_tokens=0), "max_output_tokens", "at least 1"),
        (document(max_output_tokens=1.5), "max_output_tokens", "whole number"),
        (document(max_output_tokens=True), "max_output_tokens", "whole number"),
        (document(max_output_tokens=10**30), "max_output_tokens", "at most"),
        (document(reply_cache_s=-1), "reply_cache_s", "at least 0"),
        (document(reply_similarity=0.6), "reply_similarity", "at least 0.7"),
        (document(reply_similarity="0.9"), "reply_similarity", "without quotes"),
        (document(memory={"limit": 51}), "memory.limit", "at most 50"),
        (document(memory={"scope": "world"}), "memory.scope", "Write session or user"),
        (document(memory={"threshold": 40.1}), "memory.threshold", "at most 40"),
        (document(memory={"cap": -1}), "memory.cap", "at least 0"),
        (document(memory={"days": 36_501}), "memory.days", "at most 36500"),
        (document(conversation_days=36_501), "conversation_days", "at most 36500"),
        (document(knowledge="handbook"), "knowledge", "Write a list"),
        (document(knowledge=[5]), "knowledge.1", "put it in quotes"),
        (document(knowledge=["handbook", "Not A Name"]), "knowledge", "Name 2: Use 1 to 63 lower-case letters"),
        (document(knowledge=["a"] * 21), "knowledge", "20"),
        (document(summary_model="x" * 201), "summary_model", "200"),
        (document(memory=None), "memory", "Write fields under it"),
        (document(access="nobody"), "access", "Write public or key"),
        (document(slug="Not A Slug"), "slug", "lower-case"),
        (document(slug="a" * 64), "slug", "63"),
        (document(name=""), "name", "blank"),
        (document(name="x" * 101), "name", "100"),
        (document(system_prompt=" \n"), "system_prompt", "Write who the agent is"),
        (document(system_prompt="x" * 100_001), "system_prompt", "At most 100,000 characters"),
        (document(greeting="x" * 2_001), "greeting", "At most 2,000 characters"),
        (document(description="x" * 1_001), "description", "At most 1,000 characters"),
        (document(note="nul \0"), "note", "NUL"),
        (document(fallbacks=[{"model": "\ud800"}]), "fallbacks.1.model", "half of a character"),
        ('{"name": "A", "system_prompt": "x"}', "slug", "This field is needed"),
    ],
)
def test_what_is_wrong_is_named_with_file_field_and_remedy(text: str, field: str, remedy: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(text, source="team/a.yaml")
    assert list(caught.value.fields) == [field]
    assert f"team/a.yaml: {field}: " in caught.value.detail
    assert remedy in caught.value.detail


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(document(temperature="x", colour=1, memory={"limit": "x"}))
    assert set(caught.value.fields) == {"temperature", "colour", "memory.limit"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: *x", "Anchors and aliases"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]", "Anchors and aliases"),
        ("slug: !!python/object/apply:os.system [id]", "Tags"),
        ("slug: !!binary aGk=", "Tags"),
        ("<<: {slug: a}", "no valid YAML"),
        ("slug: a\nslug: b", "stands there twice"),
        ('{"slug": "a", "slug": "b"}', "stands there twice"),
        ("slug: a\n---\nslug: b", "another document"),
        ("slug: [", "no valid YAML in line 1"),
        ('{"slug": ', "no valid JSON"),
        ('{"slug": NaN}', "NaN is no number"),
        ("slug: 2026-13-41", "Put it in quotes"),
        ("slug: \x07", "a character that no text has"),
        ("k: " + "9" * 10_000, "cannot be read"),
        ("- slug: a", "the fields of one agent"),
        ("just text", "the fields of one agent"),
        ("", "the fields of one agent"),
        ("[" * 100_000, "more than an agent has"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("".join(f"a{n}: 1\n" for n in range(60_000)), "more than an agent has"),
        ("- " * (MAX_CHARS // 2), "more than an agent has"),
        ("x" * (MAX_CHARS + 1), "more than 1,000,000 characters"),
    ],
)
def test_unusable_texts_are_refused_quickly(text: str, words: str) -> None:
    started = time.monotonic()
    with pytest.raises(DocumentError, match=words):
        read_document(text)
    assert time.monotonic() - started < 20


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    assert read_document("\ufeffslug: a\r\nname: A\r\nsystem_prompt: |\r\n  One\r\n  Two\r\n").system_prompt == "One\nTwo\n"
    assert read_document("\ufeff" + document()).slug == "a"
