"""Breaks chats, the worker and a command, with errors that repeat what somebody wrote: as a library's might."""

from __future__ import annotations

import os
from typing import Any

from django.apps import AppConfig

CANARY = os.environ.get("CANARY", "")  # not written here: a report shows lines of code


def break_with(text: str) -> None:
    local = f"a local variable with {text}"
    raise ValueError(f"cannot make sense of {text!r}", local)


class Broken(AppConfig):
    name = "tests.observability.broken"
    label = "broken"

    def ready(self) -> None:
        from agents.chat.turn import ChatTurn
        from memory.facts import reading
        from observability.management.commands import prices

        async def request(turn: Any) -> None:
            break_with(turn._question.message)

        ChatTurn._request = request
        reading.read_due_facts = lambda read: break_with(CANARY)
        prices.models_in_use = lambda: break_with(CANARY)
