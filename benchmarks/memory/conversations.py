"""Conversations between two people, and questions about them, from a file in LoCoMo's shape.

A list of `{sample_id, conversation, qa}`: `conversation` has `speaker_a`, `speaker_b`, and for each n `session_n_date_time` and
`session_n`, a list of `{speaker, dia_id, text, blip_caption?}`; `qa` is a list of `{question, evidence, category}`, `evidence` the
`dia_id`s of the lines that hold the answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_MOMENT: Final = re.compile(r"(?:(\d{1,2}):(\d\d) ?([ap]m) on )?(\d{1,2}) (\w+),? (\d{4})", re.IGNORECASE)
_PICTURE_OF: Final = re.compile(r"^(?:an?|the) (?:photo|photography|photograph|picture|image) of ", re.IGNORECASE)
_LABEL: Final = re.compile(r"D:?(\d+):(\d+)")


class Unreadable(Exception):
    """The file has not the shape that is described above."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one of the two said. `speaker` is 0 or 1."""

    label: str
    session: int
    said_at: datetime
    speaker: int
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """`evidence` holds the places of the lines that answer it."""

    text: str
    category: str
    evidence: frozenset[int]


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    names: tuple[str, str]
    lines: tuple[Line, ...]
    questions: tuple[Question, ...]


def read(path: Path) -> list[Conversation]:
    """Return the file's conversations, with those of its questions that have evidence.

    Raises:
        Unreadable: it cannot be read, or says something else.
    """
    try:
        found = [_conversation(sample, number) for number, sample in enumerate(json.loads(path.read_text(encoding="utf-8")), start=1)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path} cannot be read as conversations: {type(error).__name__}: {error}") from error
    if not any(conversation.questions for conversation in found):
        raise Unreadable(f"{path} cannot be read as conversations: it has no question with evidence")
    return found


def _conversation(sample: dict[str, Any], number: int) -> Conversation:
    said = sample["conversation"]
    names = (str(said["speaker_a"]), str(said["speaker_b"]))
    sessions = sorted(int(match[1]) for key in said if (match := re.fullmatch(r"session_(\d+)", key)))
    lines = tuple(
        Line(str(turn["dia_id"]), session, at, names.index(turn["speaker"]), _text(turn))
        for session in sessions
        for at in [_moment(said[f"session_{session}_date_time"])]
        for turn in said[f"session_{session}"] or ()
    )
    places = {line.label: place for place, line in enumerate(lines)}
    questions = (_question(asked, places) for asked in sample["qa"])
    return Conversation(str(sample.get("sample_id", number)), names, lines, tuple(asked for asked in questions if asked.evidence))


def _question(asked: dict[str, Any], places: dict[str, int]) -> Question:
    """Labels such as "D8:6; D9:17" and "D:11:26" are read as what they mean; those of lines that do not exist are left out."""
    labels = {f"D{int(session)}:{int(line)}" for label in asked.get("evidence") or () for session, line in _LABEL.findall(label)}
    evidence = frozenset(places[label] for label in labels if label in places)
    return Question(str(asked["question"]), str(asked["category"]), evidence)


def _text(turn: dict[str, Any]) -> str:
    """A picture that was sent is a line of text that says what it shows, as a chat would store it."""
    caption = _PICTURE_OF.sub("", (turn.get("blip_caption") or "").strip())
    return "\n".join(filter(None, [(turn["text"] or "").strip(), caption]))


def _moment(text: str) -> datetime:
    match = _MOMENT.search(text)
    if match is None:
        raise ValueError(f"{text!r} is no date such as '1:56 pm on 8 May, 2023'")
    hour, minute, half, day, month, year = match.groups(default="")
    date = datetime.strptime(f"{day} {month[:3]} {year}", "%d %b %Y").replace(tzinfo=UTC)
    return date.replace(hour=int(hour) % 12 + 12 * (half.lower() == "pm"), minute=int(minute)) if hour else date
