"""The recall statement: every passage of one owner scored for one question, in one pass over two covering indexes.

It reads the owner's sentences (for meaning) and the postings of the question's words (for words), and nothing of anybody else.
`memory/weights.py` says what each feature of the score is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import connection

from memory.models import Origin
from memory.models.vectors import MOST_INDEXED_DIMENSIONS
from memory.question import Asked
from memory.storing import halfvec
from memory.weights import WEIGHTS

# The sentences of the owner with their cosines: from the index alone where it holds the vectors.
_SENTENCES: Final = """
        SELECT seq, words, is_question, -(embedding <#> %(embedding)s::halfvec) AS cosine
        FROM memory_sentence WHERE owner_id = %(owner)s AND space_id = %(space)s ORDER BY seq OFFSET 0
"""
# Where vectors are too long for it, the index holds a bit for the sign of each dimension. The share of bits that differ tells the
# angle of two vectors well enough for most sentences; of the closest, the vectors themselves are looked at.
RESCORED: Final = 200
_WIDE_SENTENCES: Final = f"""
        SELECT seq, words, is_question, CASE WHEN closeness <= {RESCORED} THEN (
                   SELECT -(embedding <#> %(embedding)s::halfvec) FROM memory_widesentence exact
                   WHERE exact.owner_id = sketched.owner_id AND exact.space_id = %(space)s
                     AND exact.seq = sketched.seq AND exact.place = sketched.place
               ) ELSE cos(pi() * distance / vector_dims(%(embedding)s::halfvec)) END AS cosine
        FROM (
            SELECT *, row_number() OVER (ORDER BY distance) AS closeness
            FROM (
                SELECT owner_id, seq, place, words, is_question, sketch <~> binary_quantize(%(embedding)s::halfvec) AS distance
                FROM memory_widesentence WHERE owner_id = %(owner)s AND space_id = %(space)s OFFSET 0
            ) AS by_sketch
        ) AS sketched ORDER BY seq OFFSET 0
"""  # noqa: S608 - a constant
# What counts as said in a session: besides its turns, what was read from them, and what somebody noted by hand.
OF_SESSION: Final = """(
        %(session)s::bigint IS NULL OR session = %(session)s OR seq < 0 AND (
            turn_id IS NULL OR EXISTS (SELECT FROM memory_turn turn WHERE turn.id = turn_id AND turn.conversation_id = %(session)s)
        )
    )"""
# Passages that follow each other in a session have consecutive numbers (seq); between sessions the numbers jump, so that
# seq - 2 to seq + 2 never leaves one. BM25 has its usual k1 = 1.2 and b = 0.75. A cosine is the inner product, as vectors have
# length 1. Most of the time goes into copying rows from step to step: they are kept narrow, both indexes are read in the order of
# seq and merged, and what a passage's own columns tell is one number, taken apart again for the best alone. Rows that were written a
# moment ago are in no statistics of the planner: MATERIALIZED, ORDER BY, OFFSET 0 and `steady_plans` keep it from plans that are
# quick only for the few rows that it expects.
_RANK: Final = """
WITH passage AS MATERIALIZED (
    SELECT seq, session, length, window_length, word_count, turn_id IS NULL OR turn_id <> ALL(%(not_turns)s::uuid[]) AS is_wanted,
           {own_score} AS own_score
    FROM memory_passage
    WHERE owner_id = %(owner)s AND valid_until IS NULL AND {of_session}
    ORDER BY seq
), corpus AS MATERIALIZED (
    SELECT count(*)::float8 AS passages, greatest(avg(length), 1)::float8 AS mean_length FROM passage
), meaning AS (
    SELECT seq, max(cosine) AS best, greatest(max(cosine) FILTER (WHERE is_question), 0) AS question, sum(cosine * words) AS mass
    FROM ({sentences}) AS sentence
    GROUP BY seq
), posting AS MATERIALIZED (
    SELECT term, seq, frequency::float8, in_question
    FROM memory_posting
    WHERE owner_id = %(owner)s AND term = ANY(%(terms)s::text[])
      AND (%(session)s::bigint IS NULL OR EXISTS (SELECT FROM passage WHERE passage.seq = memory_posting.seq))
), rarity AS MATERIALIZED (
    SELECT asked.term, ln(1 + (corpus.passages - count(posting.seq) + 0.5) / (count(posting.seq) + 0.5)) AS idf
    FROM corpus CROSS JOIN unnest(%(terms)s::text[]) AS asked (term) LEFT JOIN posting USING (term)
    GROUP BY asked.term, corpus.passages
), total AS MATERIALIZED (
    SELECT greatest(sum(idf), 1e-9) AS idf FROM rarity
), words AS MATERIALIZED (
    SELECT posting.seq, sum(rarity.idf) / total.idf AS share,
           coalesce(sum(rarity.idf) FILTER (WHERE posting.in_question), 0) / total.idf AS share_in_questions
    FROM posting JOIN rarity USING (term) CROSS JOIN total
    GROUP BY posting.seq, total.idf
), nearby AS MATERIALIZED (
    SELECT passage.seq,
           sum(around.idf * around.frequency * 2.2 / (around.frequency + 1.2 * (0.25 + 0.75 * window_length / (5 * mean_length)))) AS bm25
    FROM (
        SELECT posting.term, posting.seq + distance AS seq, sum(posting.frequency) AS frequency, min(rarity.idf) AS idf
        FROM posting JOIN rarity USING (term), generate_series(-2, 2) AS distance
        GROUP BY posting.term, posting.seq + distance
    ) AS around
    JOIN passage USING (seq) CROSS JOIN corpus
    GROUP BY passage.seq
), found AS (
    SELECT seq, is_wanted, own_score,
           coalesce(words.share, 0) AS words,
           coalesce(meaning.best, 0) AS meaning,
           coalesce(nearby.bm25, 0) / 10 AS nearby_words,
           coalesce(meaning.mass, 0) / greatest(word_count, 1) AS whole_passage,
           lag(seq) OVER in_session IS DISTINCT FROM seq - 1 AS opens,
           lag(coalesce(meaning.question, 0) + coalesce(words.share_in_questions, 0)) OVER in_session AS asked_before,
           max(coalesce(meaning.best, 0)) OVER in_session AS session_meaning
    FROM passage LEFT JOIN meaning USING (seq) LEFT JOIN words USING (seq) LEFT JOIN nearby USING (seq)
    WINDOW in_session AS (PARTITION BY session ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
), ranked AS (
    SELECT *, own_score + {joined_score} AS score
    FROM found
    WHERE is_wanted
    ORDER BY score DESC, seq
    LIMIT %(most)s
)
SELECT id, owner_id, ranked.seq, origin, source_id, turn_id, speaker, said_at, text, score,
       ARRAY[{joined_features}, {own_features}]::float8[]
FROM ranked, LATERAL (SELECT * FROM memory_passage WHERE owner_id = %(owner)s AND seq = ranked.seq OFFSET 0) AS passage
ORDER BY score DESC, ranked.seq
"""
# What a passage's sentences, words and neighbours tell, by feature.
_JOINED: Final = {
    "words": "words",
    "meaning": "meaning",
    "nearby_words": "nearby_words",
    "whole_passage": "whole_passage",
    "answers_question": "CASE WHEN opens THEN 0 ELSE asked_before END",
    "session_meaning": "session_meaning",
    "opens": "opens::int",
}
# What a passage's own columns tell.
_SPEAKER: Final = "(speaker = %(speaker)s)::int"
_RECENT: Final = "power(0.5, greatest(date_part('epoch', now() - said_at), 0) / %(half_life_s)s)"
_DATE: Final = """coalesce((
               SELECT max(asked.value)
               FROM unnest(%(said_first)s::date[], %(said_last)s::date[], %(said_value)s::float8[]) AS asked (first, last, value)
               WHERE (said_at AT TIME ZONE 'UTC')::date BETWEEN asked.first AND asked.last
           ), 0) + CASE WHEN spans && %(spoken_of)s::datemultirange THEN 0.3 ELSE 0 END"""
# Nested loops read one side again for each row of the other, and a bitmap loses the order of seq.
_STEADY_PLANS: Final = """
    SELECT set_config('statement_timeout', %s, true),
           set_config('enable_nestloop', 'off', true), set_config('enable_bitmapscan', 'off', true)
"""


def _score(features: Mapping[str, str]) -> str:
    """Return the sum of features, each times its weight, as SQL."""
    return " + ".join(f"{WEIGHTS[name]} * ({expression})" for name, expression in features.items())


def _statement(sentences: str) -> str:
    """Return the statement without needless blanks: psycopg keeps what it made of one of at most 4,096 characters."""
    filled = _RANK.replace("{of_session}", OF_SESSION).replace("{sentences}", sentences)
    filled = filled.replace("{joined_score}", _score(_JOINED)).replace("{joined_features}", ", ".join(_JOINED.values()))
    return " ".join(filled.split())


_RANK_NARROW: Final = _statement(_SENTENCES)
_RANK_WIDE: Final = _statement(_WIDE_SENTENCES)
_HALF_LIFE_S: Final = 30 * 24 * 60 * 60.0
_COLUMNS: Final = ("id", "owner_id", "seq", "origin", "source_id", "turn_id", "speaker", "said_at", "text", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A passage and its score for a question.

    Attributes:
        seq: its place among its owner's; what was said before it in its session has the one before.
        source_id: the passage that a fact was read from.
        features: each feature's value by name, before its weight.
    """

    id: int
    owner_id: int = 0
    seq: int = 0
    origin: str = Origin.TURN
    source_id: int | None = None
    turn_id: UUID | None
    speaker: str
    said_at: datetime
    text: str
    score: float
    features: Mapping[str, float]

    def contributions(self) -> dict[str, float]:
        """Return what each feature added to the score, by name: together they are the score."""
        return {name: WEIGHTS[name] * value for name, value in self.features.items()}


def rank(
    asked: Asked,
    *,
    embedding: Sequence[float],
    space_id: int,
    owner_id: int,
    session: int | None,
    not_turns: Sequence[UUID] = (),
    most: int,
) -> list[Ranked]:
    """Return the owner's passages with the highest scores for a question, the best first.

    Args:
        embedding: of `asked.to_embed`, of length 1, in the space `space_id`; vectors of other spaces are not looked at.
        session: only what was said in this conversation, or of no particular one; None: in any.
        not_turns: turns whose passages are not wanted, such as those that are in the prompt anyway.
        most: how many passages at most.
    """
    own = _own_features(asked)
    statement = _RANK_WIDE if len(embedding) > MOST_INDEXED_DIMENSIONS else _RANK_NARROW
    statement = statement.replace("{own_score}", _score(own)).replace("{own_features}", ", ".join(own.values()))
    parameters = {
        "owner": owner_id,
        "space": space_id,
        "half_life_s": _HALF_LIFE_S,
        "session": session,
        "embedding": halfvec(embedding),
        "terms": list(asked.terms),
        "speaker": asked.speaker,
        "said_first": [days.first for days in asked.said],
        "said_last": [days.last for days in asked.said],
        "said_value": [days.value for days in asked.said],
        "spoken_of": "{" + ",".join(f"[{first},{last}]" for first, last in asked.spoken_of) + "}",
        "not_turns": list(not_turns),
        "most": most,
        **asked.forms,
    }
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    names = (*_JOINED, *own)
    return [Ranked(**dict(zip(_COLUMNS, row, strict=False)), features=_in_order(dict(zip(names, row[-1], strict=True)))) for row in rows]


def steady_plans(*, timeout_ms: int) -> None:
    """For the current transaction, bind the planner to plans that suit `rank`, and end what takes longer than `timeout_ms`."""
    with connection.cursor() as cursor:
        cursor.execute(_STEADY_PLANS, [str(timeout_ms)])


def _own_features(asked: Asked) -> dict[str, str]:
    """Return the features that a passage's own columns tell, by name, as SQL: 0 for what the question does not ask for."""
    forms = [f"has_{form}::int * %({form})s::float8" for form in asked.forms]
    return {
        "date": _DATE if asked.said or asked.spoken_of else "0",
        "speaker": _SPEAKER,
        "answer_form": f"greatest({', '.join(forms)})" if forms else "0",
        "asks": "asks",
        "recent": _RECENT,
    }


def _in_order(features: Mapping[str, float]) -> dict[str, float]:
    return {name: features[name] for name in WEIGHTS}
