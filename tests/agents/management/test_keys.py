"""`manage.py keys`."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from agents.models import ApiKey, KeyOwner
from tests.factories import make_agent, make_key


def run(*arguments: str) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command("keys", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def test_create_prints_the_secret_alone(db: None) -> None:
    agent = make_agent()
    out, err = run("create", "web-shop", "Web shop", "--agent", agent.slug, "--scope", "chat", "--scope", "erase", "--expires-in", "90d")
    key = ApiKey.objects.get()
    assert key.is_valid(out.strip())
    assert out.count("\n") == 1
    assert out.strip() not in err
    assert (key.owner.slug, key.name, key.scopes, list(key.agents.all())) == ("web-shop", "Web shop", ["chat", "erase"], [agent])
    assert abs(key.expiry_date - timezone.now() - timedelta(days=90)) < timedelta(minutes=1)


def test_create_takes_an_owner_that_exists_and_chat_alone_unless_told(db: None) -> None:
    run("create", "web-shop", "one", "--all-agents")
    run("create", "web-shop", "two", "--all-agents")
    assert KeyOwner.objects.count() == 1
    assert {(key.name, tuple(key.scopes), key.all_agents, key.expiry_date) for key in ApiKey.objects.all()} == {
        ("one", ("chat",), True, None),
        ("two", ("chat",), True, None),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "web-shop", "n"),
        ("create", "web-shop", "n", "--agent", "nobody"),
        ("create", "Web Shop", "n", "--all-agents"),
        ("create", "web-shop", "", "--all-agents"),
        ("create", "web-shop", "x" * 51, "--all-agents"),
        ("create", "web-shop", "n", "--all-agents", "--scope", "everything"),
        ("create", "web-shop", "n", "--all-agents", "--expires-in", "tomorrow"),
        ("create", "web-shop", "n", "--all-agents", "--expires-in", "0d"),
        ("create", "web-shop", "n", "--all-agents", "--expires-in", "99999d"),
        ("rotate", "nobodysk"),
        ("revoke", "nobodysk"),
        (),
    ],
)
def test_what_cannot_be_done_changes_nothing(db: None, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)
    assert not ApiKey.objects.exists()
    assert not KeyOwner.objects.exists()


def test_list_shows_every_key_and_no_secret(db: None) -> None:
    issued = make_key(make_agent(slug="agent-for-list"), name="the first", scopes=("chat", "usage"))
    make_key(name="the second", scopes=(), expires_at=timezone.now() - timedelta(days=1))
    out, _ = run("list")
    assert issued.secret not in out
    assert issued.key.hashed_key not in out
    first = next(line for line in out.splitlines() if "the first" in line)
    assert first.split() == [issued.key.prefix, issued.key.owner.slug, "active", "never", "agent-for-list", "chat,usage", "the", "first"]
    assert "expired" in next(line for line in out.splitlines() if "the second" in line)


def test_rotate_and_revoke(db: None) -> None:
    old = make_key(all_agents=True).key
    out, err = run("rotate", old.prefix, "--overlap", "12h")
    new = ApiKey.objects.get(replaces=old)
    assert new.is_valid(out.strip())
    assert f"{old.prefix} goes on until" in err
    with pytest.raises(CommandError, match=new.prefix):
        run("rotate", old.prefix)
    with pytest.raises(CommandError, match="at most 90 days"):
        run("rotate", new.prefix, "--overlap", "91d")
    assert "within 5 seconds" in run("revoke", new.prefix)[1]
    assert ApiKey.objects.get(pk=new.pk).revoked
    assert "already" in run("revoke", new.prefix)[1]
