"""A meter for tests of models alone: it notes what it is told."""

from __future__ import annotations

from agents.providers.base import UpstreamFailed
from agents.versions.live import ModelChoice


class NotingMeter:
    """What was called, in order: `begun`, and of it what failed."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.failures: list[str] = []
        self.bodies: list[bytes] = []

    async def begin(self, choice: ModelChoice) -> None:
        self.begun.append(choice.model)

    def sending(self, body: bytes) -> None:
        self.bodies.append(body)

    def failed(self, error: UpstreamFailed) -> None:
        self.failures.append(error.code)

    def left(self) -> None:
        self.failures.append("left")

    def skipped(self, choice: ModelChoice, error: UpstreamFailed) -> None:
        self.failures.append(f"{choice.model}: {error.code}")
