from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from agents.models import Access
from tests.factories import make_agent

pytestmark = pytest.mark.django_db
HTML = {"Accept": "text/html"}


def directives(response: Any) -> dict[str, str]:
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in response["Content-Security-Policy"].split(";"))}


def test_the_list_names_agents_that_anybody_may_talk_to(client: Client) -> None:
    support = make_agent(name="Support & <more>", description="Answers questions.")
    hidden = [make_agent(is_active=False), make_agent(published=False), make_agent(access=Access.KEY)]

    text = client.get("/").content.decode()

    assert f'href="/chat/{support.slug}"' in text
    assert "Support &amp; &lt;more&gt;" in text
    assert "Answers questions." in text
    assert not any(agent.slug in text for agent in hidden)


def test_the_list_is_friendly_when_empty(client: Client) -> None:
    response = client.get("/")

    assert response.status_code == 200
    assert "No agent is open to everybody yet" in response.content.decode()


def test_the_chat_page_points_to_the_public_api(client: Client) -> None:
    agent = make_agent(name="Support")

    response = client.get(f"/chat/{agent.slug}")
    text = response.content.decode()

    assert response.status_code == 200
    assert f'data-endpoint="/api/chat/{agent.slug}"' in text
    assert f'data-agent-url="/api/agents/{agent.slug}"' in text
    assert f"curl -X POST http://testserver/api/chat/{agent.slug} " in text  # for people without JavaScript
    assert '<html lang="en">' in text


def test_the_chat_page_reads_one_row(client: Client, django_assert_num_queries: Any) -> None:
    agent = make_agent()

    with django_assert_num_queries(1):
        client.get(f"/chat/{agent.slug}")


@pytest.mark.parametrize("fields", [{"is_active": False}, {"published": False}, {"access": Access.KEY}, None])
def test_agents_that_one_may_not_talk_to_look_absent(client: Client, fields: dict[str, Any] | None) -> None:
    slug = "nobody" if fields is None else make_agent(**fields).slug

    response = client.get(f"/chat/{slug}", headers=HTML)
    text = response.content.decode()

    assert response.status_code == 404
    assert "<h1>Agent not found</h1>" in text
    assert "Check the address" in text
    assert slug not in text


def test_the_policy_is_strict(client: Client) -> None:
    policy = directives(client.get(f"/chat/{make_agent().slug}"))

    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["img-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "dompurify"


@pytest.mark.parametrize("path", ["/", "/chat/nobody"])
def test_other_pages_have_no_inline_script_or_style(client: Client, path: str) -> None:
    response = client.get(path, headers=HTML)

    assert "unsafe" not in response["Content-Security-Policy"]
    for inline in ("<style", " style=", "<script>", " onclick="):
        assert inline not in response.content.decode()


def test_only_reading_is_allowed(client: Client) -> None:
    agent = make_agent()

    assert client.head(f"/chat/{agent.slug}").status_code == 200
    assert client.post(f"/chat/{agent.slug}").status_code == 405
