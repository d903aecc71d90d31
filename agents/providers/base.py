"""What a model is to the chat turn, and what can go wrong with one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from agents.versions.live import ModelChoice
from observability.errors import ChatbotError


class Message(TypedDict):
    """One message of a prompt, as the OpenAI protocol has it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Meter(Protocol):
    """Who keeps account of the calls of models."""

    async def begin(self, choice: ModelChoice) -> None:
        """Note that `choice` is about to be called.

        Raises:
            ChatbotError: it must not be: a budget refuses it.
        """

    def sending(self, body: bytes) -> None:
        """Note what the call sends: its body, as it is."""

    def failed(self, error: UpstreamFailed) -> None:
        """Note that the call led to no answer."""

    def left(self) -> None:
        """Note that nobody waits for the call any more."""

    def skipped(self, choice: ModelChoice, error: UpstreamFailed) -> None:
        """Note that `choice` is not called, although it is its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What is asked of a model. `deadline` is on the event loop's clock, in seconds; `meter` is told of every call of it."""

    messages: list[Message]
    temperature: float | None
    top_p: float | None
    max_output_tokens: int
    stream: bool
    deadline: float
    meter: Meter


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt, what the provider had in its cache."""


class ModelAnswer(Protocol):
    """An answer that has begun. Iterate it for pieces of text; afterwards `finish_reason` and `usage` are known, and
    the `failure` that broke it midway, if one did. Whoever starts one closes it.

    Raises:
        UpstreamFailed: while iterating, where the answer broke midway.
    """

    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def failure(self) -> UpstreamFailed | None: ...

    def __aiter__(self) -> AsyncIterator[str]: ...

    async def aclose(self) -> None:
        """Hang up. The provider stops working on an unfinished answer."""


class ChatModel(Protocol):
    """Anything that answers: a provider's model, or a wrapper around others."""

    async def start(self, request: ModelRequest) -> ModelAnswer:
        """Return the answer once its first words are there.

        Raises:
            UpstreamFailed: no answer could be had.
        """


class UpstreamFailed(ChatbotError):
    """A model did not answer, or stopped midway. `reason` is for the operator's log, never for the caller."""

    code = "upstream-failed"
    status = 502
    title = "Failed to process message"
    remedy = "The model behind this agent did not answer. Try again in a moment; the operator's log has the reason under this request id."

    def __init__(
        self, reason: str, *, retryable: bool, wait_s: float | None = None, is_billable: bool = False, is_fault: bool | None = None
    ) -> None:
        super().__init__()
        self.reason = reason
        self.is_billable = is_billable
        """Whether the model may have begun, so that the provider may charge for what it read."""
        self.retryable = retryable
        self.is_fault = retryable if is_fault is None else is_fault
        """Whether the provider is at fault, rather than what it was asked or with which key: a reason to leave it alone."""
        self.wait_s = wait_s
        """Seconds the provider asked to be left alone, from its Retry-After."""


class UpstreamTimedOut(UpstreamFailed):
    """One of the provider's timeouts passed."""

    code = "upstream-timed-out"
    status = 504
    remedy = "The model behind this agent took too long. Try again in a moment, or with a shorter message."


class NoModel(ChatbotError):
    """Neither the version nor the default provider names a model."""

    code = "no-model"
    status = 502
    title = "Failed to process message"
    remedy = "No model is set up for this agent. The operator can add a provider in the admin, or set OPENAI_API_KEY."
