"""The worker's port of metrics never keeps the worker from its work."""

import asyncio
import contextlib
import socket

import httpx2
import pytest
from structlog.testing import capture_logs

from observability.worker_metrics import keep_serving_metrics


def test_without_a_port_nothing_is_served(settings):
    settings.WORKER_METRICS_PORT = 0
    asyncio.run(asyncio.wait_for(keep_serving_metrics(asyncio.Event()), 60))


def test_a_port_that_is_taken_is_said_aloud(settings):
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings.WORKER_METRICS_PORT = other.getsockname()[1]
        with capture_logs() as logs:
            asyncio.run(asyncio.wait_for(keep_serving_metrics(asyncio.Event()), 60))
    [line] = logs
    assert line["event"] == "metrics of the worker not served"
    assert line["port"] == settings.WORKER_METRICS_PORT
    assert "WORKER_METRICS_PORT" in line["remedy"]


@pytest.mark.usefixtures("live_db")
def test_in_development_this_machine_needs_no_token(settings, free_port):
    settings.WORKER_METRICS_PORT, settings.METRICS_TOKEN, settings.METRICS_NEED_TOKEN = free_port, "", False

    async def scrape():
        stopping = asyncio.Event()
        serving = asyncio.create_task(keep_serving_metrics(stopping))
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{free_port}", trust_env=False, timeout=60) as client:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(httpx2.ConnectError):
                        found = await client.get("/metrics")
                        if "chatbot_database_up 1.0" in found.text:  # the database is given a second, and this machine may be busy
                            break
                    await asyncio.sleep(0.02)
            elsewhere = await client.get("/admin/")
        stopping.set()
        await serving
        return found, elsewhere

    found, elsewhere = asyncio.run(scrape())
    assert found.status_code == 200
    assert elsewhere.status_code == 404
