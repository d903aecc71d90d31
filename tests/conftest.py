"""What every test may ask for.

Tests of one function use Django's own fixtures (`db`, `client`). Tests of the whole ask for `server`, the real one in a
process of its own: what it shall see must be committed, so they use `live_db` (which `make_chat_agent` brings along) instead
of `db`. Nothing is flushed after them; every agent, provider and session has a name of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import hypothesis
import pytest
import structlog
from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases
from pytest_django import DjangoDbBlocker

from tests.live_server import LiveServer, live_server
from tests.no_network import cut_off
from tests.upstream import Upstream, UpstreamServer

pytest_plugins = ["tests.browser", "tests.embedder", "tests.prometheus"]

cut_off()

# How long an example takes depends on who else uses the machine; a failing one prints how to replay it. Fixtures of one test may
# serve all its examples: each uses names of its own.
hypothesis.settings.register_profile(
    "project",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("project")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what the server wrote during a test that failed."""
    outcome = yield
    report = outcome.get_result()
    for server, since in item.stash.get(SERVERS_AT_START, []):
        if report.failed and server.log_path.exists() and (text := server.log(since=since)):
            report.sections.append((f"log of {server.url}", text[-20_000:]))


SERVERS_AT_START = pytest.StashKey[list[tuple[LiveServer, int]]]()


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[UpstreamServer]:
    server = UpstreamServer()
    yield server
    server.stop()


@pytest.fixture
def upstream(upstream_server: UpstreamServer) -> Iterator[Upstream]:
    """A scripted OpenAI-compatible API of this test's own: `tests/upstream`."""
    upstream = upstream_server.open()
    yield upstream
    upstream_server.close(upstream)


@pytest.fixture
def open_upstream(upstream_server: UpstreamServer) -> Iterator[Callable[[], Upstream]]:
    """More upstreams, for fallback chains."""
    opened: list[Upstream] = []

    def open_upstream() -> Upstream:
        opened.append(upstream_server.open())
        return opened[-1]

    yield open_upstream
    for upstream in opened:
        upstream_server.close(upstream)


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_blocker: DjangoDbBlocker, django_db_modify_db_settings: None
) -> Iterator[None]:
    """Make the test database always: pytest-django's own fixture makes none for a run in which only `live_db` is used."""
    with django_db_blocker.unblock():
        databases = setup_databases(verbosity=0, interactive=False, aliases={"default"})
    yield
    with django_db_blocker.unblock():
        teardown_databases(databases, verbosity=0)


@pytest.fixture(scope="session")
def server_environment(django_db_setup: None) -> dict[str, str]:
    """The environment of servers that work on this worker's test database."""
    return {
        "DATABASE_URL": urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")),
        "REDIS_URL": os.environ["REDIS_URL"],
        "EMBEDDING_CACHE_S": "0",
        "CLASSIFIER_DEADLINE_MS": "10000",  # whoever else uses the machine
    }


@pytest.fixture(scope="session")
def _session_server(server_environment: dict[str, str]) -> Iterator[LiveServer]:
    with live_server(environment=server_environment) as server:
        yield server


@pytest.fixture
def server(_session_server: LiveServer, request: pytest.FixtureRequest) -> LiveServer:
    """The real server, with one worker process; shared by the tests of a session."""
    _watch_log(request, _session_server)
    return _session_server


@pytest.fixture
def start_server(server_environment: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Callable[..., LiveServer]]:
    """Start a server of this test's own: `start_server(workers=3, CHAT_MAX_MESSAGE_CHARS="100")`."""
    with ExitStack() as stack:

        def start_server(*, workers: int = 1, **environment: str) -> LiveServer:
            server = stack.enter_context(live_server(environment={**server_environment, **environment}, workers=workers))
            _watch_log(request, server)
            return server

        yield start_server


@pytest.fixture
def watch_log(request: pytest.FixtureRequest) -> Callable[[LiveServer], None]:
    """Print what a server writes during this test, should it fail."""
    return partial(_watch_log, request)


def _watch_log(request: pytest.FixtureRequest, server: LiveServer) -> None:
    request.node.stash.setdefault(SERVERS_AT_START, []).append((server, server.log_path.stat().st_size))


@pytest.fixture
def api(server: LiveServer) -> Iterator[httpx2.Client]:
    """An HTTP client bound to `server`."""
    with server.client() as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _capturable_logs() -> None:
    """A logger that was used once would write past `capture_logs`."""
    structlog.configure(cache_logger_on_first_use=False)


@pytest.fixture
def live_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database without a transaction around the test: what is written is committed, and servers see it."""
    with django_db_blocker.unblock():
        yield
        connections.close_all()


@pytest.fixture
def make_chat_agent(live_db: None) -> Callable[..., Any]:
    """Make a committed agent whose model is an `upstream`.

        agent = make_chat_agent(upstream, system_prompt="Be brief.", provider={"first_token_timeout_s": 0.5},
                                fallbacks=[(other_upstream, "other-model")])

    Other fields are those of `tests.factories.make_agent`. No timeout is met by a model that only a busy machine, or a gate,
    holds up, except those that `provider` names.
    """
    from agents.versions.content import write_fallbacks
    from agents.versions.drafts import draft_of
    from agents.versions.publishing import publish
    from tests.factories import make_agent, make_provider

    def make_chat_agent(
        upstream: Upstream,
        *,
        provider: dict[str, Any] | None = None,
        fallbacks: list[tuple[Upstream, str]] | None = None,
        published: bool = True,
        **fields: Any,
    ) -> Any:
        # Tests script each answer; those of the reply cache ask for one.
        fields = {"reply_cache_s": 0, **fields}
        timeouts = {"connect_timeout_s": 60, "first_token_timeout_s": 300, "between_tokens_timeout_s": 300, "total_timeout_s": 600}
        timeouts |= provider or {}
        agent = make_agent(published=False, provider=make_provider(base_url=upstream.base_url, **timeouts), **fields)
        draft = draft_of(agent)
        assert draft is not None
        others = [(make_provider(base_url=other.base_url, **timeouts).pk, model) for other, model in fallbacks or []]
        write_fallbacks(draft, fallbacks=others)
        if published:
            publish(draft, actor=None)
        agent.refresh_from_db()
        return agent

    return make_chat_agent
