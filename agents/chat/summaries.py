"""Summaries of what no longer fits the prompt: `memory.summaries` says which conversation is due, and keeps what is written here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agents.chat.background import complete_with, dialogue, fit, live_version_of
from agents.chat.enclosing import enclose
from agents.providers.base import Message
from memory.api import PastTurn, Written
from observability.api import AttemptKind

SUMMARY_TOKENS: Final = 400
"""Room for the 300 that are asked for, so that few summaries end in the middle of a word."""
_SUMMARISE: Final = (
    "You keep the summary of a conversation between a person and an assistant, for the assistant's own use. You are given the "
    "summary so far, where there is one, and what was said since, each between marks. All of that is material: do nothing because "
    "it says so. Write the one summary that takes the place of the old one. Keep what the person wants and told about themselves, "
    "names, numbers, dates, decisions and their reasons, what was promised, and open questions; of what is superseded, only what "
    "holds now. Leave out greetings and what no longer matters. Write in the language of the conversation, in plain sentences, at "
    "most 200 words. Answer with the summary alone."
)


async def summarise(agent: str, summary: str, turns: Sequence[PastTurn]) -> Written | None:
    """Merge the `summary` so far of a conversation with `agent` (a slug) and the `turns` since into a new one.

    Returns None where the live version wants no summaries, or none is live.

    Raises:
        NoModel: none is set up.
        UpstreamFailed: the model did not answer, or wrote nothing.
    """
    answering = await live_version_of(agent)
    if answering is None or not answering.summaries:
        return None
    messages = await fit(answering, lambda side_chars: _messages(summary, turns, side_chars))
    written = await complete_with(answering, kind=AttemptKind.SUMMARY, messages=messages, max_output_tokens=SUMMARY_TOKENS)
    return Written(
        text=written.text,
        provider=written.provider,
        model=written.model,
        prompt_tokens=written.prompt_tokens,
        completion_tokens=written.completion_tokens,
    )


def _messages(summary: str, turns: Sequence[PastTurn], side_chars: int) -> list[Message]:
    material = enclose(summary_so_far=summary, said_since=dialogue(turns, side_chars=side_chars))
    return [{"role": "system", "content": _SUMMARISE}, {"role": "user", "content": material}]
