"""Conversations as they are read."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from memory.transcripts import ConversationNotFound, find_conversation

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("subject", ["", "ada"])
def test_a_conversation_is_found_without_reading_the_others(finish, subject):
    for number in range(300):
        finish("Hello", session=f"session {number}", remember=False)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE memory_conversation, memory_subject")
        with (
            CaptureQueriesContext(
                connection,
            ) as queries,
            pytest.raises(ConversationNotFound),
        ):
            find_conversation("anonymous", agent="companion", session_id="session 300", subject=subject)
        [query] = queries.captured_queries
        cursor.execute(f"EXPLAIN {query['sql']}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan on memory_conversation" not in plan, plan
