"""People who are signed in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from tests.factories import make_user


@pytest.fixture
def sign_in(db: None) -> Callable[[str], Client]:
    """`sign_in("operator")` returns a client of somebody in that role."""

    def sign_in(role: str) -> Client:
        client = Client(headers={"accept": "text/html"})
        client.force_login(make_user(role=role))
        return client

    return sign_in


@pytest.fixture
def operator(sign_in: Callable[[str], Client]) -> Client:
    return sign_in("operator")
