"""The parser of `templates/static/chat/sse.js`, run in the browser that uses it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.live_server import LiveServer

STREAM = (
    "\ufeff: keep-alive\n\n"
    'event: start\r\nid: 1:0\r\ndata: {"a": 1}\r\n\r\n'
    "event: delta\ndata: Grüße 🦉\n\n"
    "data:no space\ndata: second line\ndata\n\n"
    ": keep-alive\r\n\r\n"
    "event: nothing to send\n\n"
    "retry: 5\rdata: by returns\r\r"
    "data:  kept space: and colon\r\n\n"
    "event: done\ndata: {}\n\n"
    "data: never finished"
)
EVENTS = [
    {"event": "start", "data": '{"a": 1}'},
    {"event": "delta", "data": "Grüße 🦉"},
    {"event": "message", "data": "no space\nsecond line\n"},
    {"event": "message", "data": "by returns"},
    {"event": "message", "data": " kept space: and colon"},
    {"event": "done", "data": "{}"},
]
# Takes [bytes, the lists of places at which to cut]; returns the distinct outcomes, as JSON.
PARSE = """async ([bytes, cuttings]) => {
  const { EventStreamParser } = await import("/static/chat/sse.js");
  const outcomes = new Set();
  for (const cuts of cuttings) {
    const parser = new EventStreamParser();
    const events = [];
    let start = 0;
    for (const end of [...cuts, bytes.length]) {
      events.push(...parser.push(Uint8Array.from(bytes.slice(start, end))));
      start = end;
    }
    outcomes.add(JSON.stringify(events));
  }
  return [...outcomes].map((outcome) => JSON.parse(outcome));
}"""


@pytest.fixture
def parse(page: Page, server: LiveServer) -> Any:
    page.goto(server.url)

    def parse(text: str, cuttings: list[list[int]]) -> list[Any]:
        return page.evaluate(PARSE, [list(text.encode()), cuttings])

    return parse


def test_one_cut_anywhere_changes_nothing(parse: Any) -> None:
    assert parse(STREAM, [[cut] for cut in range(len(STREAM.encode()) + 1)]) == [EVENTS]


def test_two_cuts_anywhere_change_nothing(parse: Any) -> None:
    size = len(STREAM.encode())

    assert parse(STREAM, [[first, second] for first in range(size) for second in range(first, size)]) == [EVENTS]


def test_byte_by_byte_changes_nothing(parse: Any) -> None:
    assert parse(STREAM, [list(range(1, len(STREAM.encode())))]) == [EVENTS]


def test_an_event_without_its_empty_line_is_not_an_event(parse: Any) -> None:
    assert parse('event: done\ndata: {"reply": "half', [[]]) == [[]]
