"""Traces: what a collector gets of a request, over a real server and a real OTLP endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.factories import unique
from tests.http_sink import Sink, http_sink
from tests.live_server import LiveServer
from tests.sse import read_events
from tests.upstream import Refusal, Reply, Upstream
from tests.waiting import eventually

CANARY = "canary-51e0c7"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Sink]:
    with http_sink() as sink:
        yield sink


@pytest.fixture
def traced_server(collector: Sink, start_server: Callable[..., LiveServer]) -> LiveServer:
    collector.posted.clear()
    return start_server(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100", RELEASE="2.4.0", ENVIRONMENT_NAME="staging"
    )


def spans(collector: Sink) -> list[Span]:
    found: list[Span] = []
    for posted in collector.posted:
        assert posted.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(posted.body).resource_spans:
            about = attributes(resource.resource)
            assert (about["service.name"], about["service.version"]) == ("chatbot", "2.4.0")
            assert about["deployment.environment.name"] == "staging"
            found += [span for scope in resource.scope_spans for span in scope.spans]
    return found


def attributes(holder: Any) -> dict[str, Any]:
    """Return the attributes of a span or a resource as plain values."""
    plain = {}
    for attribute in holder.attributes:
        kind = attribute.value.WhichOneof("value")
        value = getattr(attribute.value, kind)
        plain[attribute.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return plain


def spans_of_trace(collector: Sink, count: int) -> dict[str, list[Span]]:
    """Return the spans of the trace that the caller began, by the first word of their names, once there are so many."""

    def look() -> list[Span]:
        found = [span for span in spans(collector) if span.trace_id.hex() == TRACE_ID]
        return found if len(found) >= count else []

    by_kind: dict[str, list[Span]] = {}
    for span in eventually(look, what=f"{count} spans"):
        by_kind.setdefault(span.name.split()[0], []).append(span)
    return by_kind


def test_a_request_is_one_trace_from_the_caller_to_the_model(
    traced_server: LiveServer, collector: Sink, upstream: Upstream, make_chat_agent: Callable[..., Any]
) -> None:
    upstream.script(Refusal(503), Reply(f"A reply with {CANARY}", usage=(11, 7), model="some-model-2026-11-01"))
    agent, request_id = make_chat_agent(upstream, model="some-model"), unique("request")
    headers = {"traceparent": PARENT, "X-Request-ID": request_id}
    with traced_server.client() as client:
        answer = client.post(f"/api/chat/{agent.slug}", json={"message": f"A message with {CANARY}"}, headers=headers)
    assert answer.status_code == 200, answer.text
    found = spans_of_trace(collector, 4)
    [request], [turn], [failed, done] = (
        found["POST"],
        found["invoke_agent"],
        sorted(found["chat"], key=lambda span: span.start_time_unix_nano),
    )
    assert (request.name, request.kind) == ("POST /api/chat/<str:agent>", Span.SPAN_KIND_SERVER)
    assert request.parent_span_id.hex() == PARENT.split("-")[2]
    assert attributes(request)["chatbot.request_id"] == request_id
    assert attributes(request)["http.response.status_code"] == 200
    assert turn.parent_span_id == request.span_id
    said_of_turn = attributes(turn)
    assert said_of_turn["gen_ai.operation.name"] == "invoke_agent"
    assert said_of_turn["gen_ai.agent.name"] == agent.slug
    assert (said_of_turn["gen_ai.usage.input_tokens"], said_of_turn["gen_ai.usage.output_tokens"]) == (11, 7)
    assert said_of_turn["chatbot.message_id"] == answer.json()["message_id"]
    assert said_of_turn["chatbot.outcome"] == "done"
    for attempt in (failed, done):
        assert (attempt.name, attempt.kind, attempt.parent_span_id) == ("chat some-model", Span.SPAN_KIND_CLIENT, turn.span_id)
        assert attributes(attempt)["gen_ai.request.model"] == "some-model"
        assert attributes(attempt)["gen_ai.provider.name"] == agent.live_version.provider.slug
        assert attributes(attempt)["server.address"] == "127.0.0.1"
    assert attributes(failed)["error.type"] == "upstream-failed"
    assert attributes(done)["gen_ai.response.finish_reasons"] == ["stop"]
    assert attributes(done)["gen_ai.response.model"] == "some-model-2026-11-01"
    assert (attributes(done)["gen_ai.usage.input_tokens"], attributes(done)["gen_ai.usage.output_tokens"]) == (11, 7)
    passed_on = [call.headers["traceparent"] for call in upstream.calls]
    assert passed_on == [f"00-{TRACE_ID}-{attempt.span_id.hex()}-01" for attempt in (failed, done)]
    assert CANARY.encode() not in b"".join(posted.body for posted in collector.posted)
    assert f'"trace_id":"{TRACE_ID}"' in traced_server.log()


def test_a_stream_that_breaks_off_is_told_as_a_failure(
    traced_server: LiveServer, collector: Sink, upstream: Upstream, make_chat_agent: Callable[..., Any]
) -> None:
    upstream.script(Reply(chunks=["half an ", "answer"], cut_after_chunks=2))
    agent = make_chat_agent(upstream)
    body = {"message": "Hello", "stream": True}
    with traced_server.client() as client:
        stream = client.post(f"/api/chat/{agent.slug}", json=body, headers={"traceparent": PARENT})
    assert read_events(stream.text)[-1].name == "error"
    found = spans_of_trace(collector, 3)
    for name in ("invoke_agent", "chat"):
        [span] = found[name]
        assert attributes(span)["error.type"] == "upstream-failed"
        assert span.status.code == 2


def test_recall_is_part_of_the_trace_and_unreadable_parents_are_not(
    traced_server: LiveServer, collector: Sink, upstream: Upstream, make_chat_agent: Callable[..., Any]
) -> None:
    upstream.script(Reply("Hello"))
    agent = make_chat_agent(upstream, memory_enabled=True)
    with traced_server.client() as client:
        client.post(f"/api/chat/{agent.slug}", json={"message": "Where do I live?"}, headers={"traceparent": "00-nonsense"})
    recall = eventually(lambda: [span for span in spans(collector) if span.name == "recall"], what="recall's span")
    turn = eventually(
        lambda: next((span for span in spans(collector) if span.span_id == recall[0].parent_span_id), None), what="the turn's"
    )
    assert turn.name == f"invoke_agent {agent.slug}"
    assert attributes(recall[0])["chatbot.recall.outcome"] == "empty"
