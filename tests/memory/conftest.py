"""What tests of memory share: turns that wait to be remembered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from memory.models import TurnState
from memory.turns import FinishedTurn, NewTurn, finish_turns, open_turns
from tests.factories import unique


@pytest.fixture
def finish() -> Callable[..., UUID]:
    """Store a finished turn: `finish("I like green apples", "So do I.", session=…, remember=False, …)`; return its id."""

    def finish(message: str, reply: str = "", *, session: str = "", state: str = "done", remember: bool = True, **fields: Any) -> UUID:
        now = datetime.now(UTC)
        session = session or unique("session")
        turn = NewTurn(
            **{
                "id": uuid7(),
                "owner": "anonymous",
                "subject": session,
                "session_id": session,
                "agent": "companion",
                "version": 1,
                "message": message,
                "created_at": now,
                "deadline_at": now + timedelta(seconds=60),
                "recent_turns": 0,
                "recent_chars": 0,
                "remember": remember,
                **fields,
            }
        )
        open_turns([turn])
        if state != "running":
            assert finish_turns([FinishedTurn(id=turn.id, state=TurnState(state), reply=reply)]) == [True]
        return turn.id

    return finish
