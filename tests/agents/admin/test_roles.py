"""Every address of the admin, asked by every role: who gets a page, who a refusal, and that nobody gets a server error."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone

from agents.models import Agent, AgentVersion, Provider, Publication
from memory.models import Conversation, Erasure, MemoryOwner, Subject, Turn, TurnState, UpkeepRun
from observability.models import AlertRule, AlertTarget, Attempt, Budget, Incident, Limit, LogLevel, ModelPrice
from tests.factories import make_agent, make_key, make_passage, make_provider, make_user, make_version

ROLES = (None, "", "editor", "operator", "superuser")
EVERYBODY = {"admin:login", "admin:logout", "admin:jsi18n"}
STAFF = {"admin:index", "admin:password_change", "admin:password_change_done", "admin:autocomplete", "admin:view_on_site"}
AGENT_READING = {
    "admin:agents_agent_changelist",
    "admin:agents_agent_change",
    "admin:agents_agent_history",
    "admin:agents_agent_settings",
    "admin:agents_agent_export",
    "admin:agents_agent_versions",
    "admin:agents_agent_version",
    "admin:agents_agent_memory",
    "admin:agents_agent_recall",
    "admin:agents_agent_route",
    "admin:agents_agent_named",
    "admin:agents_agent_log_messages",  # who may use it: test_logged_messages.py
}
AGENT_WRITING = {
    "admin:agents_agent_add",
    "admin:agents_agent_delete",
    "admin:agents_agent_import",
    "admin:agents_agent_tokens",
    "admin:agents_agent_discard",
    "admin:agents_agent_publish",
    "admin:agents_agent_make_live",
    "admin:agents_agent_try",
}
# Of a shared collection; tests/memory/admin asks for those of a person.
KNOWLEDGE_READING = {f"admin:memory_memoryowner_{page}" for page in ("changelist", "change", "history")}
KNOWLEDGE_WRITING = {"admin:agents_agent_begin_own"} | {
    f"admin:memory_memoryowner_{page}"
    for page in ("add", "delete", "delete_collection", "add_memory", "forget_all", "correct", "pin", "forget")
}
PROVIDER = {
    "admin:agents_provider_changelist",
    "admin:agents_provider_add",
    "admin:agents_provider_change",
    "admin:agents_provider_history",
}
KEYS = {f"admin:agents_{model}_{page}" for model in ("apikey", "keyowner") for page in ("changelist", "add", "change", "history")} | {
    "admin:agents_apikey_rotate",
    "admin:agents_apikey_revoke",
}
# Prices, budgets and limits, and the ledger to look at.
COST = {
    f"admin:observability_{model}_{page}"
    for model in ("modelprice", "budget", "limit")
    for page in ("changelist", "add", "change", "delete", "history")
} | {f"admin:observability_attempt_{page}" for page in ("changelist", "change", "history")}
ALERTS = {f"admin:observability_alerttarget_{page}" for page in ("changelist", "add", "change", "delete", "history")} | {
    f"admin:observability_{model}_{page}" for model in ("alertrule", "incident") for page in ("changelist", "change", "history")
}
LOG_LEVEL = {f"admin:observability_loglevel_{page}" for page in ("changelist", "add", "change", "history", "restore")}
DOCTOR = {"admin:observability_doctorreport_changelist"}
LOOKED_AT = ("conversation", "turn", "subject", "erasure", "upkeeprun")
READ_ONLY = {f"admin:memory_{model}_{page}" for model in LOOKED_AT for page in ("changelist", "change", "history")}
PEOPLE_WRITING = {"admin:memory_subject_erase"}
PEOPLE_READING = {f"admin:auth_{model}_{page}" for model in ("user", "group") for page in ("changelist", "change", "history")}
SUPERUSER_ONLY = {
    "admin:agents_provider_delete",
    "admin:agents_apikey_delete",
    "admin:agents_keyowner_delete",
    "admin:auth_user_password_change",
} | {f"admin:auth_{model}_{page}" for model in ("user", "group") for page in ("add", "delete")}
NOBODY = (
    {f"admin:memory_{model}_{page}" for model in LOOKED_AT for page in ("add", "delete")}
    | {f"admin:observability_attempt_{page}" for page in ("add", "delete")}
    | {"admin:observability_loglevel_delete"}
    | {f"admin:observability_{model}_{page}" for model in ("alertrule", "incident") for page in ("add", "delete")}
)
# Async, so they check people by themselves: test_trying.py, test_asking_classifiers.py, test_probing.py, test_alerts.py and test_doctor.py
# ask them. The search is off: test_agents.py.
ELSEWHERE = {"admin:agents_agent_try_chat", "admin:agents_agent_route_ask", "admin:agents_provider_probe", "admin:search"} | {
    f"admin:observability_{model}_{page}" for model, page in (("alerttarget", "test"), ("alertrule", "test"), ("doctorreport", "examine"))
}

EDITING = AGENT_WRITING | KNOWLEDGE_WRITING
READING = STAFF | AGENT_READING | KNOWLEDGE_READING
OPERATING = READING | PROVIDER | KEYS | COST | ALERTS | LOG_LEVEL | DOCTOR | READ_ONLY | PEOPLE_WRITING | PEOPLE_READING
ALLOWED = {
    "editor": READING | EDITING,
    "operator": OPERATING,
    "superuser": OPERATING | EDITING | SUPERUSER_ONLY,
    "": set(),
    None: set(),
}


def named_routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLPattern) and pattern.name:
            yield f"admin:{pattern.name}"


ROUTES = sorted(
    set(named_routes(admin.site.get_urls())) | {name for site in admin.site._registry.values() for name in named_routes(site.get_urls())}
)


@pytest.fixture
def addresses(db: None) -> dict[str, str]:
    """An address for each route, of rows that exist."""
    agent = make_agent(published=True)
    make_version(agent)
    make_version(agent, published=False)
    provider = make_provider()
    person = make_user(role="editor")
    conversation = Conversation.objects.create(
        subject=Subject.objects.create(owner="anonymous", name="s"), owner="anonymous", agent=agent.slug, session_id="s"
    )
    now = timezone.now()
    turn = Turn.objects.create(
        id=uuid.uuid4(), conversation=conversation, seq=1, state=TurnState.DONE, agent=agent.slug, version=1, message="<b>Hi</b>",
        reply="Hello", created_at=now, deadline_at=now + timezone.timedelta(minutes=1), finished_at=now,
    )  # fmt: skip
    ids = {"agents_agent": agent.pk, "agents_provider": provider.pk, "memory_conversation": conversation.pk, "memory_turn": turn.pk}
    key = make_key(agent).key
    rule = AlertRule.objects.get(kind="latency")
    incident = Incident.objects.create(
        rule=rule, subject="helper", name="agent helper", text="It is slow.", value=11, first_seen_at=now, last_seen_at=now, opened_at=now
    )
    ids |= {"agents_apikey": key.pk, "agents_keyowner": key.owner_id}
    ids |= {"auth_user": person.pk, "auth_group": person.groups.get().pk}
    collection = MemoryOwner.objects.create(kind="shared", collection="prices")
    erasure = Erasure.objects.create(id=uuid.uuid4(), actor="admin:anna", counts={"memories": 2}, erased_at=now, took_ms=5)
    run = UpkeepRun.objects.create(actor="the worker", started_at=now)
    ids |= {"memory_memoryowner": collection.pk, "memory_subject": conversation.subject_id}
    ids |= {"memory_erasure": erasure.pk, "memory_upkeeprun": run.pk}
    ids |= {
        "observability_modelprice": ModelPrice.objects.create(provider="p", model="m", input_usd=1, output_usd=1, effective_from=now).pk,
        "observability_budget": Budget.objects.create(name="All", limit_usd=1).pk,
        "observability_limit": Limit.objects.create(scope="key").pk,
        "observability_alerttarget": AlertTarget.objects.create(name="Ops", kind="slack").pk,
        "observability_alertrule": rule.pk,
        "observability_incident": incident.pk,
        "observability_loglevel": LogLevel.objects.create(level="DEBUG", set_at=now, until=now, set_by="anna").pk,
        "observability_attempt": Attempt.objects.create(id=uuid.uuid4(), kind="chat", started_at=now, deadline_at=now).pk,
    }
    passage = make_passage(collection, "Tea costs 2 euros.")
    found = {}
    for route in ROUTES:
        name = route.removeprefix("admin:")
        model = next((model for model in ids if name.startswith(model)), "")
        for args in ((), (ids.get(model),), (ids.get(model), passage if model == "memory_memoryowner" else 1), (agent.slug, "memory")):
            try:
                found[route] = reverse(route, args=args)
                break
            except Exception:  # noqa: S112 - another number of arguments
                continue
    return found


def test_every_route_is_in_the_matrix() -> None:
    known = set().union(EVERYBODY, NOBODY, ELSEWHERE, *ALLOWED.values())
    assert set(ROUTES) - {"admin:app_list"} == known
    assert get_resolver().reverse_dict  # the project's own address table loads


@pytest.mark.parametrize("role", ROLES)
def test_role_meets_pages_or_refusals_only(role: str | None, addresses: dict[str, str], sign_in: Callable[..., Client]) -> None:
    client = sign_in(role)
    wrong = []
    for route, address in addresses.items():
        if route in EVERYBODY | ELSEWHERE | {"admin:app_list", "admin:view_on_site", "admin:autocomplete"}:
            continue
        response = client.get(address)
        to_login = response.status_code == 302 and "/login/" in response["Location"]
        is_refused = to_login or response.status_code == 403
        if is_refused == (route in ALLOWED[role]) or response.status_code >= 500:
            wrong.append((route, response.status_code))
    assert wrong == []


@pytest.mark.parametrize("role", [None, "", "operator"])
def test_only_editors_change_agents(role: str | None, addresses: dict[str, str], sign_in: Callable[..., Client]) -> None:
    client = sign_in(role)
    before = [list(model.objects.order_by("pk").values()) for model in (Agent, AgentVersion, Publication)]
    for route in sorted(AGENT_WRITING | {"admin:agents_agent_change", "admin:agents_agent_settings"}):
        response = client.post(addresses[route], {"post": "yes", "name": "Other", "access": "public"})
        assert response.status_code == 403 or "/login/" in response["Location"], route
    for route in sorted(AGENT_READING):
        assert client.post(addresses[route], {"action": "delete_selected", "_selected_action": "1"}).status_code < 500
    assert [list(model.objects.order_by("pk").values()) for model in (Agent, AgentVersion, Publication)] == before


def test_editor_cannot_change_providers(addresses: dict[str, str], editor: Client) -> None:
    before = list(Provider.objects.values())
    for route in sorted(PROVIDER | {"admin:agents_provider_delete"}):
        assert editor.post(addresses[route], {"slug": "mine"}).status_code == 403
    assert list(Provider.objects.values()) == before


EVERY_PAGE = [
    *("Overview", "Agents", "Providers", "API keys", "Key owners"),
    *(
        "Cost overview",
        "Budgets",
        "Limits",
        "Prices",
        "Ledger",
        "Incidents",
        "Alert rules",
        "Alert targets",
        "Conversations",
        "Turns",
        "Upkeep",
    ),
    *("People", "Shared knowledge", "Erasures", "Doctor", "Log level", "Users", "Groups"),
]


@pytest.mark.parametrize(
    ("role", "titles"),
    [
        ("editor", ["Overview", "Agents", "Shared knowledge"]),
        ("operator", EVERY_PAGE),
        ("superuser", EVERY_PAGE),
    ],
)
def test_sidebar_shows_what_the_role_may_see(role: str, titles: list[str], sign_in: Callable[..., Client]) -> None:
    response = sign_in(role).get(reverse("admin:index"))
    shown = [item["title"] for group in response.context["sidebar_navigation"] for item in group["items"] if item["has_permission"]]
    assert shown == titles


def test_conversations_are_read_only_even_for_superusers(addresses: dict[str, str], sign_in: Callable[..., Client]) -> None:
    client = sign_in("superuser")
    for route in sorted(NOBODY):
        assert client.post(addresses[route], {"post": "yes"}).status_code == 403
    page = sign_in("operator").get(addresses["admin:memory_turn_change"]).content.decode()
    for label in ("Number in its conversation", "First word after (ms)"):
        assert label in page
    for route in ("admin:memory_turn_change", "admin:memory_conversation_change"):
        assert client.post(addresses[route], {"message": "changed"}).status_code == 403
    assert Turn.objects.get().message == "<b>Hi</b>"


def test_transcript_escapes_what_was_said(addresses: dict[str, str], sign_in: Callable[..., Client]) -> None:
    text = sign_in("operator").get(addresses["admin:memory_conversation_change"]).content.decode()
    assert "&lt;b&gt;Hi&lt;/b&gt;" in text
    assert "<b>Hi</b>" not in text


@pytest.mark.parametrize("path", ["999999", "0", "abc", "-1", "99999999999999999999", "1/nothing", "%00", "é"])
def test_unknown_agents_are_not_found(path: str, editor: Client) -> None:
    for page in ("change", "settings", "versions", "publish", "history", "delete", "try", "export", "versions/1", "discard"):
        response = editor.get(f"/admin/agents/agent/{path}/{page}/")
        assert response.status_code in (301, 302, 404, 405), (page, response.status_code)


@pytest.mark.parametrize("path", ["999999", "abc", "-1", "99999999999999999999", "\u00b2", "%00"])
def test_unknown_rows_are_no_server_errors(path: str, sign_in: Callable[..., Client]) -> None:
    client = sign_in("superuser")
    looked_at = [f"memory/{model}" for model in (*LOOKED_AT, "memoryowner")]
    looked_at += [f"observability/{model}" for model in ("modelprice", "budget", "limit", "attempt")]
    for model in ("agents/provider", "agents/apikey", "agents/keyowner", "auth/user", *looked_at):
        for page in ("change", "delete", "history"):
            assert client.get(f"/admin/{model}/{path}/{page}/").status_code in (302, 403, 404), (model, page)


def test_operators_see_no_password_hash(sign_in: Callable[..., Client]) -> None:
    person = make_user(role="editor", password="something long")
    text = sign_in("operator").get(f"/admin/auth/user/{person.pk}/change/").content.decode()
    assert person.username in text
    assert person.password not in text


def test_people_who_wrote_versions_can_be_deleted(sign_in: Callable[..., Client]) -> None:
    author = make_user(role="editor", username="leaving")
    agent = make_agent(author=author)
    superuser = sign_in("superuser")
    assert superuser.post(f"/admin/auth/user/{author.pk}/delete/", {"post": "yes"}).status_code == 302
    assert superuser.get(f"/admin/agents/agent/{agent.pk}/versions/").status_code == 200


def test_agent_without_any_version_still_has_its_pages(editor: Client) -> None:
    agent = Agent.objects.create(slug="bare", name="Bare")
    for page in ("versions", "export", "change", "settings", "try", "publish"):
        assert editor.get(f"/admin/agents/agent/{agent.pk}/{page}/").status_code in (200, 302), page
    assert editor.get("/admin/").status_code == 200


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_signing_in_leads_to_no_other_site(target: str, db: None) -> None:
    make_user(role="editor", username="somebody", password="a-long-password-1")
    answer = Client().post("/admin/login/", {"username": "somebody", "password": "a-long-password-1", "next": target})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
