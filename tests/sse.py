"""Reading server-sent events in tests: strictly, so that a malformed stream fails."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: Any


def read_events(body: str) -> list[Event]:
    """Return the events of a whole stream; comments are left out.

    Raises:
        AssertionError: the stream does not end with a blank line, or an event lacks a name, an id or JSON data.
    """
    assert body.endswith("\n\n"), f"the stream breaks off: {body[-200:]!r}"
    blocks = [block for block in body.removesuffix("\n\n").split("\n\n") if not block.startswith(":")]
    return [_read_event(block) for block in blocks]


def text_of(events: list[Event]) -> str:
    """Return the reply that the deltas make."""
    return "".join(event.data["text"] for event in events if event.name == "delta")


def _read_event(block: str) -> Event:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    assert set(fields) == {"event", "id", "data"}, block
    return Event(fields["event"], fields["id"], json.loads(fields["data"]))
