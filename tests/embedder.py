"""The built-in embedder as a process of its own, for tests that embed."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memory.embedders.client import EmbeddingModel, embedding_model
from tests import ports
from tests.waiting import eventually


def _wait_for_embedder(process: subprocess.Popen[bytes], port: int) -> None:
    def is_up() -> bool:
        assert process.poll() is None, "the embedder ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    eventually(is_up, what="the embedder answers", timeout_s=60)


@pytest.fixture
def free_port() -> int:
    return ports.free_port()


@pytest.fixture
def wait_for_embedder() -> Callable[[subprocess.Popen[bytes], int], None]:
    return _wait_for_embedder


@pytest.fixture(scope="session")
def embedder_port() -> Iterator[int]:
    """The port of a built-in embedder that runs as long as the session."""
    port = ports.free_port()
    process = subprocess.Popen([sys.executable, "-m", "memory.embedders.builtin", str(port)])
    _wait_for_embedder(process, port)
    yield port
    process.terminate()
    assert process.wait(60) == 0


@pytest.fixture
def embedder(embedder_port: int, settings: Any) -> EmbeddingModel:
    """The embedding model of the settings: the built-in one."""
    settings.EMBEDDER_URL = f"http://127.0.0.1:{embedder_port}/v1"
    settings.OUTBOUND_ALLOWED_HOSTS = [*settings.OUTBOUND_ALLOWED_HOSTS, f"127.0.0.1:{embedder_port}"]
    settings.OPENAI_API_KEY = settings.EMBEDDING_BASE_URL = ""
    model = embedding_model()
    assert model is not None
    return model
