"""Traces for OpenTelemetry, sent over OTLP/HTTP where OTEL_EXPORTER_OTLP_ENDPOINT is set: times and figures, never what was said.

A request's span holds its turn's, which holds recall's and one for each call of a model; names are those of the conventions for HTTP
and generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/). A caller's `traceparent` is taken up, and models are sent ours.
Where nothing is traced, nothing of OpenTelemetry is imported, and `begin_span` returns a span that does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal

from django.conf import settings

from observability.logs import note

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

Attribute = str | int | float | bool | list[str] | None
Kind = Literal["internal", "server", "client"]


class Span:
    """A piece of work that is timed until `end`. This one does nothing: nothing is traced."""

    __slots__ = ()

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        """Let the span say more; None is left out."""

    def end(self, *, error: str = "", name: str = "") -> None:
        """End it; `error`: the kind of its failure, `name`: what it is called after all. Only the first end counts."""


NOTHING: Final = Span()
_current: ContextVar[Span] = ContextVar("span", default=NOTHING)
_tracer: Tracer | None = None


class _Recorded(Span):
    """A span of OpenTelemetry."""

    __slots__ = ("_span", "context")

    def __init__(self, name: str, *, kind: Kind, parent: Context | None) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        assert _tracer is not None
        self._span = _tracer.start_span(name, kind=SpanKind[kind.upper()], context=parent)
        self.context = set_span_in_context(self._span, parent)

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None and value != ""})

    def end(self, *, error: str = "", name: str = "") -> None:
        from opentelemetry.trace import StatusCode

        if name:
            self._span.update_name(name)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def start_tracing() -> None:
    """Trace this process's work from now on, where OTEL_EXPORTER_OTLP_ENDPOINT says where to send it."""
    global _tracer
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.version": settings.RELEASE, "deployment.environment.name": settings.ENVIRONMENT_NAME}
    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "chatbot"), **{name: value for name, value in about.items() if value}}
    provider = TracerProvider(resource=Resource.create(named))
    exporter = OTLPSpanExporter(endpoint=f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("chatbot")


def is_tracing() -> bool:
    """Tell whether this process's work is traced."""
    return _tracer is not None


def begin_span(name: str, *, kind: Kind = "internal", attributes: Mapping[str, Attribute] | None = None) -> Span:
    """Return a new span within the one of this moment."""
    if _tracer is None:
        return NOTHING
    within = _current.get()
    span = _Recorded(name, kind=kind, parent=within.context if isinstance(within, _Recorded) else None)
    span.note(attributes or {})
    return span


def begin_request(name: str, meta: Mapping[str, str]) -> Span:
    """Return the span of a request, within the caller's own where a header names one; what the request does is part of it.

    `meta`: the headers as `HttpRequest.META` has them, at hand without a look at all the others.
    """
    if _tracer is None:
        return NOTHING
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {field: value for field in ("traceparent", "tracestate") if (value := meta.get(f"HTTP_{field.upper()}"))}
    span = _Recorded(name, kind="server", parent=TraceContextTextMapPropagator().extract(carrier))
    _current.set(span)
    note(trace_id=span.trace_id)
    return span


def go_on_within(span: Span) -> None:
    """Let what this task does from now on be part of `span`."""
    if _tracer is not None:
        _current.set(span)


@contextmanager
def within(span: Span) -> Iterator[None]:
    """Let what is done in the block be part of `span`."""
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)


def trace_headers() -> dict[str, str]:
    """Return the headers that tell whom we call of the span of this moment; none where nothing is traced."""
    span = _current.get()
    if not isinstance(span, _Recorded):
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, context=span.context)
    return headers
