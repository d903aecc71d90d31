"""What a prompt leaves out of the conversation so far, and so what it would have cost more to send it whole.

Nothing is counted for this: how many tokens a character of this very prompt had, the model itself tells with its usage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from agents.providers.base import Message
from memory.api import OpenedTurn, PastTurn
from observability.api import AttemptOutcome, SettledAttempt

# What a model reads at most whose context is not known.
_MOST_READ_TOKENS: Final = 128_000


@dataclass(frozen=True, slots=True)
class Trimming:
    """How many characters a prompt left out of the conversation, and how many it has itself."""

    left_out_chars: int = 0
    sent_chars: int = 0

    def note_on(self, settled: Sequence[SettledAttempt]) -> tuple[SettledAttempt, ...]:
        """Return attempts with how many tokens they were spared, as their model counts; those that failed were spared nothing."""
        if not self.left_out_chars:
            return tuple(settled)
        return tuple(replace(attempt, trimmed_tokens=self._tokens_of(attempt)) for attempt in settled)

    def _tokens_of(self, attempt: SettledAttempt) -> int:
        if not attempt.prompt_tokens or attempt.outcome is AttemptOutcome.FAILED:
            return 0
        most = (attempt.price.context_tokens if attempt.price else None) or _MOST_READ_TOKENS
        left_out = round(self.left_out_chars * attempt.prompt_tokens / max(1, self.sent_chars))
        return max(0, min(left_out, most - attempt.tokens))


NOTHING_LEFT_OUT: Final = Trimming()


def trimming_of(opened: OpenedTurn, *, oldest: int, summary: str, messages: Sequence[Message]) -> Trimming:
    """Return what `messages`, whose oldest turn is `oldest`, leave out of the conversation that `opened` goes on with.

    A summary that is sent is taken off. Turns so long ago that they were not even read count as those that were, on average.
    """
    recent = opened.recent
    if not recent or oldest <= 1:
        return NOTHING_LEFT_OUT
    first = recent[0].seq
    read_chars = sum(map(_chars_of, recent))
    unread_chars = (first - 1) * read_chars / (opened.seq - first)
    left_out = unread_chars + sum(_chars_of(turn) for turn in recent if turn.seq < oldest) - len(summary)
    return Trimming(max(0, round(left_out)), sum(len(message["content"]) for message in messages))


def _chars_of(turn: PastTurn) -> int:
    return len(turn.message) + len(turn.reply)
