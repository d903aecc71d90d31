"""The OpenAPI document is valid, and the server keeps what it says, whatever is sent (schemathesis)."""

import httpx2
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.upstream import Reply


@pytest.fixture
def document(api):
    response = api.get("/api/schema", headers={"Accept": "application/json"})
    assert response.status_code == 200, response.text
    return yaml.safe_load(response.text)


@pytest.fixture
def api_schema(document, server):
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    return schema


@pytest.fixture
def agent_slug(make_chat_agent, upstream):
    upstream.script(Reply("Fine"))
    return make_chat_agent(upstream).slug


def test_the_document_is_valid_openapi_3_1(document):
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert {"/api/chat/{agent}", "/api/agents", "/api/agents/{agent}"} <= set(document["paths"])
    answers = document["paths"]["/api/chat/{agent}"]["post"]["responses"]
    assert {"200", "400", "401", "404", "413", "502", "503", "504"} <= set(answers)
    assert {"application/json", "text/event-stream"} <= set(answers["200"]["content"])


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("POST", "/api/chat/{agent}", GenerationMode.POSITIVE),
        ("POST", "/api/chat/{agent}", GenerationMode.NEGATIVE),
        ("GET", "/api/agents", GenerationMode.POSITIVE),
        ("GET", "/api/agents/{agent}", GenerationMode.POSITIVE),
    ],
)
def test_the_server_keeps_what_the_document_says(api_schema, agent_slug, method, path, mode):
    statuses = set()

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(case=api_schema[path][method].as_strategy(generation_mode=mode))
    def keeps_what_the_document_says(case):
        if "agent" in (case.path_parameters or {}):
            case.path_parameters["agent"] = agent_slug
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            case.body.pop("stream", None)  # OpenAPI 3.1 has no words for events
        # What a schema cannot say is refused all the same: blank messages, fields that need a key.
        response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
        statuses.add(response.status_code)

    keeps_what_the_document_says()
    assert (200 in statuses) == (mode is GenerationMode.POSITIVE)


def test_the_documentation_page_needs_nothing_from_elsewhere(api: httpx2.Client):
    page = api.get("/api/docs", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "https://" not in page.text
    assert "cdn" not in page.text
