"""Who is calling, and whose session it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings
from structlog.testing import capture_logs

from agents.access import addresses, anonymous, client_address, editor, resolve_session

PROXY = "10.0.0.5"


@pytest.fixture(autouse=True)
def _trusted(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        # Nobody but a trusted proxy is believed.
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        (PROXY, "198.51.100.1", "198.51.100.1"),
        # The client's own lies stand to the left of what the proxy wrote.
        (PROXY, "1.1.1.1, 2.2.2.2, 198.51.100.1", "198.51.100.1"),
        # Chains of trusted proxies.
        (PROXY, "198.51.100.1, 10.1.1.1, 10.2.2.2", "198.51.100.1"),
        (PROXY, "9.9.9.9, 198.51.100.1, 10.1.1.1", "198.51.100.1"),
        (PROXY, "10.3.3.3", "10.3.3.3"),
        # What is no address ends the chain.
        (PROXY, "unknown", PROXY),
        (PROXY, "198.51.100.1, garbage", PROXY),
        (PROXY, ",,,", PROXY),
        # Ports, brackets and IPv6.
        (PROXY, "198.51.100.1:4711", "198.51.100.1"),
        (PROXY, "[2001:db8::1]:4711", "2001:db8::1"),
        (PROXY, "2001:DB8:0::1", "2001:db8::1"),
        # A server that listens on [::] sees IPv4 peers as mapped addresses.
        ("::ffff:10.0.0.5", "198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.9", "198.51.100.1", "203.0.113.9"),
        (PROXY, "::ffff:198.51.100.1", "198.51.100.1"),
        # A proxy on the same host, over a Unix socket.
        ("", "198.51.100.1", "198.51.100.1"),
    ],
)
def test_the_clients_address(peer: str, forwarded: str, address: str) -> None:
    assert client_address(peer, forwarded) == address


def test_without_trusted_proxies_the_header_is_nothing(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = []
    for peer in (PROXY, "127.0.0.1", "::1", ""):
        assert client_address(peer, "198.51.100.1") == peer


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "environment", "warns"),
    [
        (PROXY, "198.51.100.1", [], "", True),
        ("100.64.0.7", "198.51.100.1", [], "production", True),
        ("::ffff:127.0.0.1", "198.51.100.1", [], "", True),
        ("", "198.51.100.1", [], "", True),
        # Nothing was forwarded, or by a stranger; the proxy is named; or it is a developer's own machine.
        (PROXY, "", [], "", False),
        ("8.8.8.8", "198.51.100.1", [], "", False),
        ("no address", "198.51.100.1", [], "", False),
        (PROXY, "198.51.100.1", ["10.0.0.0/8"], "", False),
        (PROXY, "198.51.100.1", [], "development", False),
    ],
)
def test_a_proxy_that_nobody_named_is_reported_once(
    settings: Settings, peer: str, forwarded: str, trusted: list[str], environment: str, *, warns: bool
) -> None:
    settings.TRUSTED_PROXIES, settings.ENVIRONMENT_NAME = trusted, environment
    addresses._warn_of_unnamed_proxy.cache_clear()
    with capture_logs() as lines:
        for _ in range(3):
            client_address(peer, forwarded)
    assert [line["log_level"] for line in lines] == ["warning"] * warns
    assert all("TRUSTED_PROXIES" in line["remedy"] for line in lines)


@pytest.mark.parametrize("peer", ["203.0.113.9", PROXY])
def test_a_thousand_forged_headers_are_one_owner(peer: str) -> None:
    real = "" if peer != PROXY else ", 203.0.113.9"
    forged = [f"{random.getrandbits(32) >> 8 & 255}.{number & 255}.{number >> 8}.7{real}" for number in range(1000)]
    assert len({anonymous(client_address(peer, header)).owner for header in forged}) == 1


@given(peer=st.text(max_size=30), header=st.text(max_size=80))
def test_no_header_breaks_it(peer: str, header: str) -> None:
    assert client_address(peer, header) is not None


def test_the_address_is_not_stored_and_cannot_be_guessed_without_the_key(settings: Settings) -> None:
    first = anonymous("203.0.113.9").owner
    assert "203" not in first
    settings.SECRET_KEY = "another-" * 10
    assert anonymous("203.0.113.9").owner != first


def test_a_made_session_works_from_every_address_and_a_chosen_one_only_from_its_own() -> None:
    here, there = anonymous("203.0.113.1"), anonymous("203.0.113.2")
    owner, made = resolve_session(here, None)
    assert resolve_session(there, made) == (owner, made)
    assert resolve_session(here, "user-123")[0] != resolve_session(there, "user-123")[0]
    assert resolve_session(here, "user-123") == resolve_session(here, "user-123")
    assert len(made) <= 128


def test_made_sessions_differ() -> None:
    assert len({resolve_session(anonymous("::1"), None)[1] for _ in range(1000)}) == 1000


def test_no_forged_session_reaches_the_namespace_of_made_ones() -> None:
    caller = anonymous("203.0.113.1")
    owner, made = resolve_session(caller, None)
    random_part, _, proof = made.rpartition(".")
    forgeries = [
        random_part,
        f"{random_part}.",
        f".{proof}",
        f"{random_part}x.{proof}",
        f"{random_part}.{proof[:-1]}{'A' if proof[-1] != 'A' else 'B'}",
        f"{random_part}.{proof}=",
        f"{random_part}.é",
        f"s_.{proof}",
        made.upper(),
        f" {made}",
        resolve_session(caller, None)[1].rpartition(".")[0] + "." + proof,
    ]
    for forged in forgeries:
        assert resolve_session(caller, forged)[0] == caller.owner != owner, forged


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128))
def test_whatever_is_chosen_lives_in_the_callers_namespace(name: str) -> None:
    caller = anonymous("203.0.113.1")
    assert resolve_session(caller, name) == (caller.owner, name)


def test_made_sessions_survive_the_rotation_of_secret_key(settings: Settings) -> None:
    owner, made = resolve_session(anonymous("::1"), None)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another-" * 10
    assert resolve_session(anonymous("::2"), made) == (owner, made)
    settings.SECRET_KEY_FALLBACKS = []
    assert resolve_session(anonymous("::2"), made)[0] != owner


def test_editors_have_a_namespace_each_and_may_use_what_needs_a_key() -> None:
    assert resolve_session(editor(1), None)[0] != resolve_session(editor(2), None)[0]
    _, made = resolve_session(anonymous("::1"), None)
    assert resolve_session(editor(1), made)[0] == editor(1).owner
    assert editor(1).may_use("a", access="key")
    assert not anonymous("::1").may_use("a", access="key")
    assert anonymous("::1").may_use("a", access="public")
