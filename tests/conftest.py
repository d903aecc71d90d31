"""What every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.upstream import Upstream, UpstreamServer


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
