"""Calls of models as spans of a trace, with the names of OpenTelemetry's conventions for generative AI; nothing of what was said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from agents.providers.base import ModelAnswer, ModelRequest, UpstreamFailed, Usage
from agents.providers.wire import OpenAIWire, WireAnswer
from agents.versions.live import ModelChoice
from observability.tracing import Attribute, Span, begin_span, within

# The conventions' names for well-known vendors; any other is called as the operator calls it.
_VENDORS: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}


class Traced:
    """Times each call of a model until its answer ended. A `ChatModel`."""

    def __init__(self, model: OpenAIWire, choice: ModelChoice) -> None:
        self._model = model
        self._choice = choice

    async def start(self, request: ModelRequest) -> ModelAnswer:
        span = begin_span(f"chat {self._choice.model}", kind="client", attributes=_asked(self._choice, request))
        try:
            with within(span):  # so that the model is sent this span's traceparent
                answer = await self._model.start(request)
        except BaseException as error:
            span.end(error=_kind_of(error))
            raise
        return TracedAnswer(answer, span)


class TracedAnswer:
    """An answer that ends its span. A `ModelAnswer`."""

    def __init__(self, answer: WireAnswer, span: Span) -> None:
        self._answer = answer
        self._span = span

    @property
    def provider(self) -> str:
        return self._answer.provider

    @property
    def model(self) -> str:
        return self._answer.model

    @property
    def finish_reason(self) -> str:
        return self._answer.finish_reason

    @property
    def usage(self) -> Usage | None:
        return self._answer.usage

    @property
    def failure(self) -> UpstreamFailed | None:
        return self._answer.failure

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for text in self._answer:
                yield text
        except BaseException as error:
            self._end(error=_kind_of(error))
            raise

    async def aclose(self) -> None:
        await self._answer.aclose()
        self._end()

    def _end(self, *, error: str = "") -> None:
        usage = self._answer.usage
        answered: dict[str, Attribute] = {
            "gen_ai.response.model": self._answer.answering_model,
            "gen_ai.response.finish_reasons": [self._answer.finish_reason],
        }
        self._span.note(answered | (usage_of(usage) if usage else {}))
        self._span.end(error=error)


def usage_of(usage: Usage) -> dict[str, Attribute]:
    """Return tokens under the conventions' names."""
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens or None,
    }


def _asked(choice: ModelChoice, request: ModelRequest) -> Mapping[str, Attribute]:
    address = urlsplit(choice.provider.base_url)
    host = address.hostname or ""
    vendor = "azure.ai.openai" if host.endswith(".openai.azure.com") else _VENDORS.get(host, choice.provider.slug)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": vendor,
        "gen_ai.request.model": choice.model,
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.stream": request.stream or None,
        "server.address": host,
        "server.port": address.port or (443 if address.scheme == "https" else 80),
        "chatbot.provider": choice.provider.slug,
    }


def _kind_of(error: BaseException) -> str:
    return error.code if isinstance(error, UpstreamFailed) else type(error).__name__
