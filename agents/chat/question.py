"""What a caller asks of an agent."""

from __future__ import annotations

import msgspec

from agents.access import Caller


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks of an agent.

    Attributes:
        user: the end user whom the caller names; "" where it names none.
        version: answer with this published version; None: with the live one.
        draft: answer with the unpublished draft; for editors.
        stream: ask the model for a stream, so that the reply comes in pieces.
        address: where the caller is, for limits; "" where nobody counts.
        wants_fresh: no kept answer, please (Cache-Control: no-cache).
    """

    agent: str
    message: str
    caller: Caller
    session_id: str | None = None
    user: str = ""
    version: int | None = None
    draft: bool = False
    stream: bool = False
    metadata: dict[str, str] = {}
    request_id: str = ""
    address: str = ""
    wants_fresh: bool = False
