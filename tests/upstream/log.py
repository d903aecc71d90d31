"""One test's view of the upstream: its script and the log of the calls that came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .behaviours import Behaviour, Reply

DEADLINE_S = 30.0


@dataclass(eq=False)
class Call:
    """What is known of one request. Times are `time.monotonic()`."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    raw_body: bytes
    body: Any
    """The decoded JSON; None where the body is none."""
    started_at: float = field(default_factory=time.monotonic)
    chunks_sent: int = 0
    finished_at: float | None = None
    """When the whole answer had been written."""
    disconnected_at: float | None = None
    """When the client closed before that."""

    @property
    def model(self) -> str:
        return str(self.body.get("model", "")) if isinstance(self.body, dict) else ""

    @property
    def is_stream(self) -> bool:
        return bool(isinstance(self.body, dict) and self.body.get("stream"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The prompt that came: `role` and `content` of each message."""
        return list(self.body["messages"])

    @property
    def summary(self) -> str:
        """A line for error messages."""
        end = "left by the client" if self.disconnected_at else "finished" if self.finished_at else "under way"
        kind = "stream" if self.is_stream else "JSON"
        return f"  {self.number}. {kind}, {self.newest_message[:40]!r}: {self.chunks_sent} chunks sent, {end}"

    @property
    def newest_message(self) -> str:
        """What the person said last."""
        return str(self.body["messages"][-1]["content"]) if isinstance(self.body, dict) and self.body.get("messages") else ""


class Upstream:
    """A base URL with a script and a log. Made by `UpstreamServer.open`; safe to use from any thread."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._changed = threading.Condition()
        self._scripts: dict[str | None, list[Behaviour]] = {None: [Reply()]}
        self._calls: list[Call] = []

    @property
    def netloc(self) -> str:
        return self.base_url.split("/")[2]

    def script(self, *behaviours: Behaviour, model: str | None = None) -> None:
        """Answer the next calls (of `model`, where given) by `behaviours` in turn; the last one repeats."""
        assert behaviours, "a script needs at least one behaviour"
        with self._changed:
            self._scripts[model] = list(behaviours)

    @property
    def calls(self) -> list[Call]:
        with self._changed:
            return list(self._calls)

    @property
    def models(self) -> list[str]:
        with self._changed:
            return sorted(model for model in self._scripts if model) or ["test-model"]

    def wait_for_calls(self, count: int = 1, *, timeout_s: float = DEADLINE_S) -> list[Call]:
        """Return the calls once there are `count` of them.

        Raises:
            TimeoutError: lists those that came.
        """
        return self.wait_until(lambda calls: len(calls) >= count, f"{count} calls", timeout_s=timeout_s)

    def wait_for_disconnect(self, count: int = 1, *, timeout_s: float = DEADLINE_S) -> list[Call]:
        """Return the calls that were left by the client before their answer was complete, once there are `count`."""
        calls = self.wait_until(
            lambda calls: sum(call.disconnected_at is not None for call in calls) >= count, f"{count} disconnects", timeout_s=timeout_s
        )
        return [call for call in calls if call.disconnected_at is not None]

    def wait_until(self, condition: Callable[[list[Call]], bool], what: str, *, timeout_s: float = DEADLINE_S) -> list[Call]:
        """Return the calls once `condition` holds of them; it is asked again whenever one changes."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._calls), timeout_s):
                calls = "\n".join(call.summary for call in self._calls)
                raise TimeoutError(f"no {what} at the upstream within {timeout_s} s. The calls:\n{calls}")
            return list(self._calls)

    # --- the server's side ---------------------------------------------------------------------------------------

    def begin(self, *, method: str, path: str, headers: dict[str, str], raw_body: bytes, body: Any) -> tuple[Call, Behaviour]:
        with self._changed:
            call = Call(len(self._calls) + 1, method, path, headers, raw_body, body)
            self._calls.append(call)
            script = self._scripts.get(call.model) or self._scripts[None]
            behaviour = script.pop(0) if len(script) > 1 else script[0]
            self._changed.notify_all()
        return call, behaviour

    def sent(self, call: Call) -> None:
        with self._changed:
            call.chunks_sent += 1
            self._changed.notify_all()

    def end(self, call: Call, *, disconnected: bool) -> None:
        with self._changed:
            if call.finished_at is not None:
                return
            if disconnected:
                call.disconnected_at = time.monotonic()
            else:
                call.finished_at = time.monotonic()
            self._changed.notify_all()
