"""Reading chat completions off the wire: server-sent events, whatever way the network cut them up, and plain JSON.

Source: https://platform.openai.com/docs/api-reference/chat-streaming and the WHATWG's event-stream format.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agents.providers.base import UpstreamFailed, Usage

MAX_LINE_BYTES: Final = 1_000_000
# The largest count, and the longest reason, that a turn's row holds.
_MOST_TOKENS: Final = 2**31 - 1
_LONGEST_REASON: Final = 40


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: Any = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Completion).decode


class CompletionReader:
    """Turns the body's bytes into text. Afterwards `finish_reason` and `usage` hold what the provider said of it.

    Attributes:
        model: which one the provider says has answered: whatever it is.
        finished: the provider said that the answer is complete.
        ended: it also said that nothing will follow, its usage included.
    """

    __slots__ = ("_failure", "_rest", "ended", "finish_reason", "finished", "model", "usage")

    def __init__(self) -> None:
        self._rest = b""
        self._failure: UpstreamFailed | None = None
        self.finish_reason = ""
        self.finished = False
        self.ended = False
        self.usage: Usage | None = None
        self.model: Any = None

    def feed(self, data: bytes) -> str:
        """Return the text that `data`, the next bytes of an event stream, completes; often several events' worth.

        Raises:
            UpstreamFailed: the bytes are not a stream of chat completion chunks, or hold an error. Text that came before it
                in the same bytes is returned first, and the error raised by `check` or the next call.
        """
        self.check()
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            raise UpstreamFailed("a line of the stream is longer than a megabyte", retryable=False)
        texts = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue  # blank lines, comments, and the event names that some servers add
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.finished = self.ended = True
            elif payload:
                try:
                    texts.append(self._take(payload))
                except UpstreamFailed as failure:
                    if not any(texts):
                        raise
                    self._failure = failure
                    break
        return "".join(texts)

    def check(self) -> None:
        """Raise what was found after the text that `feed` returned last."""
        if self._failure is not None:
            raise self._failure

    def read_json(self, body: bytes) -> str:
        """Return the text of a whole completion that came as one JSON document.

        Raises:
            UpstreamFailed: the body is no chat completion, or holds an error.
        """
        text = self._take(body)
        self.finished = True
        return text

    def _take(self, payload: bytes) -> str:
        try:
            completion = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamFailed(f"the answer is not a chat completion: {error}", retryable=True) from None
        if completion.error:
            raise UpstreamFailed(f"the provider reported an error: {completion.error}", retryable=True)
        if (usage := completion.usage) and usage.prompt_tokens is not None and usage.completion_tokens is not None:
            details = usage.prompt_tokens_details
            cached = details.cached_tokens if details and isinstance(details.cached_tokens, int) else 0
            prompt_tokens = _countable(usage.prompt_tokens)
            self.usage = Usage(prompt_tokens, _countable(usage.completion_tokens), min(max(cached, 0), prompt_tokens))
        self.model = completion.model
        text = ""
        for choice in completion.choices or ():
            if choice.index != 0:
                continue
            part = choice.delta or choice.message
            if part and part.content:
                text += part.content
            if choice.finish_reason:
                self.finish_reason = _storable(choice.finish_reason)[:_LONGEST_REASON]
                self.finished = True
        return _storable(text)


def _storable(text: str) -> str:
    # PostgreSQL's text cannot hold NUL, and no reader of an answer needs it.
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def _countable(tokens: int) -> int:
    return min(max(0, tokens), _MOST_TOKENS)
