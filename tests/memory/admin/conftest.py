"""Somebody who is signed in, and people with memories. What is embedded runs in threads of its own, so everything is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.test import Client

from agents.models import KeyOwner
from memory.browsing import person_owner
from memory.embedders.client import EmbeddingModel
from memory.models import MemoryOwner, Subject
from memory.writing import remember_due_turns
from observability.outbound import close_transports
from tests.factories import make_key_owner, make_passage, make_user, unique


@pytest.fixture
def sign_in(live_db: None) -> Callable[[str], Client]:
    """`sign_in("operator")` returns a client of somebody in that role."""

    def sign_in(role: str) -> Client:
        client = Client(headers={"accept": "text/html"})
        client.force_login(make_user(role=role))
        return client

    return sign_in


@pytest.fixture
def operator(sign_in: Callable[[str], Client]) -> Client:
    return sign_in("operator")


@pytest.fixture
def editor(sign_in: Callable[[str], Client]) -> Client:
    return sign_in("editor")


@pytest.fixture
def remember(embedder: EmbeddingModel) -> Callable[[], None]:
    """Do what the worker does, until nothing waits to be remembered."""

    async def drain() -> None:
        try:
            while await remember_due_turns(embedder):
                pass
        finally:
            await close_transports()

    # In a thread of its own: where Chromium is driven, this one has an event loop already.
    return lambda: ThreadPoolExecutor(1).submit(asyncio.run, drain()).result()


@pytest.fixture
def shop(live_db: None) -> KeyOwner:
    return make_key_owner(name=unique("Shop"))


@pytest.fixture
def maria(shop: KeyOwner) -> Subject:
    return Subject.objects.create(owner=f"owner:{shop.pk}", name=unique("maria"))


@pytest.fixture
def owner(maria: Subject) -> MemoryOwner:
    """What the agent `companion` remembers of Maria: that she lives in Lisbon."""
    owner = person_owner("companion", maria.pk)
    make_passage(owner, "Maria lives in Lisbon.")
    return owner
