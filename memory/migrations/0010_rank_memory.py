from django.db import migrations

# What recall asks, as functions, because their plans are then kept by the database session: that saves two milliseconds of planning
# and works behind any pooler (docs/adr/0013-recall-as-functions.md). memory/sources.py and memory/ranking.py call them.
#
# rank_memory: every passage of one owner scored for one question, in one pass over two covering indexes; memory/weights.py says what
# each feature is for.
#
# It reads the owner's sentences (for meaning) and the postings of the question's words (for words), and nothing of anybody else.
#
# Passages that follow each other in a session have consecutive numbers (seq); between sessions the numbers jump, so that
# seq - 2 to seq + 2 never leaves one. BM25 has its usual k1 = 1.2 and b = 0.75. A cosine is the inner product, as vectors have
# length 1. Most of the time goes into copying rows from step to step: they are kept narrow, both indexes are read in the order of
# seq and merged, and what a passage's own columns tell is one number, taken apart again for the best alone.
#
# One plan serves owners of any size, also rows that were written a moment ago and are in no statistics: MATERIALIZED, ORDER BY,
# OFFSET 0 and the settings below keep the planner from plans that are quick only for few rows. Nested loops read one side again for
# each row of the other, and a bitmap loses the order of seq.
#
# Vectors too long for the covering index are in memory_widesentence, whose index holds a bit for the sign of each dimension. The
# share of bits that differ tells the angle of two vectors well enough for most sentences; of the 200 closest, the vectors themselves
# are looked at. A space has its sentences in one of the two tables, so that reading the other costs nothing.

# What a passage's own columns tell, by feature; 0 for what the question does not ask for.
OWN = {
    "date": """CASE WHEN names_dates THEN coalesce((
                   SELECT max(asked.value) FROM unnest(said_first, said_last, said_value) AS asked (first, last, value)
                   WHERE (said_at AT TIME ZONE 'UTC')::date BETWEEN asked.first AND asked.last
               ), 0) + CASE WHEN spans && spoken_of THEN 0.3 ELSE 0 END ELSE 0 END""",
    "speaker": "(speaker = by_speaker)::int",
    "answer_form": """CASE WHEN asks_form THEN greatest(
                   has_time::int * a_time, has_number::int * a_number, has_reason::int * a_reason, has_name::int * a_name
               ) ELSE 0 END""",
    "asks": "asks",
    "recent": "power(0.5, greatest(date_part('epoch', now() - said_at), 0) / half_life_s)",
}
# What a passage's sentences, words and neighbours tell, by feature.
JOINED = {
    "words": "words",
    "meaning": "meaning",
    "nearby_words": "nearby_words",
    "whole_passage": "whole_passage",
    "answers_question": "CASE WHEN opens THEN 0 ELSE asked_before END",
    "session_meaning": "session_meaning",
    "opens": "opens::int",
}
ORDER = (
    "words", "meaning", "nearby_words", "whole_passage", "answers_question", "session_meaning",
    "date", "speaker", "answer_form", "asks", "opens", "recent",
)  # fmt: skip

CREATE = """
CREATE FUNCTION rank_memory(
    of_owner bigint,
    in_space integer,
    query_embedding halfvec,
    query_terms text[],
    weights jsonb,
    most integer DEFAULT 60,
    in_session bigint DEFAULT NULL,
    not_turns uuid[] DEFAULT '{}',
    by_speaker text DEFAULT '',
    forms jsonb DEFAULT '{}',
    said_first date[] DEFAULT '{}',
    said_last date[] DEFAULT '{}',
    said_value float8[] DEFAULT '{}',
    spoken_of datemultirange DEFAULT '{}'
)
RETURNS TABLE (
    id bigint, owner_id bigint, seq integer, origin text, source_id bigint, turn_id uuid, speaker text, said_at timestamptz, text text,
    score float8, features float8[]
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_nestloop = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    half_life_s CONSTANT float8 := 30 * 24 * 60 * 60;
    names_dates CONSTANT boolean := said_first <> '{}' OR spoken_of <> '{}';
    asks_form CONSTANT boolean := forms <> '{}';
    a_time CONSTANT float8 := coalesce((forms->>'time')::float8, 0);
    a_number CONSTANT float8 := coalesce((forms->>'number')::float8, 0);
    a_reason CONSTANT float8 := coalesce((forms->>'reason')::float8, 0);
    a_name CONSTANT float8 := coalesce((forms->>'name')::float8, 0);
    {weights}
BEGIN
    RETURN QUERY
    WITH passage AS MATERIALIZED (
        SELECT seq, session, length, window_length, word_count, turn_id IS NULL OR turn_id <> ALL(not_turns) AS is_wanted,
               {own_score} AS own_score
        FROM memory_passage
        WHERE owner_id = of_owner AND valid_until IS NULL AND (
            in_session IS NULL OR session = in_session OR seq < 0 AND (
                turn_id IS NULL OR EXISTS (SELECT FROM memory_turn turn WHERE turn.id = turn_id AND turn.conversation_id = in_session)
            )
        )
        ORDER BY seq
    ), corpus AS MATERIALIZED (
        SELECT count(*)::float8 AS passages, greatest(avg(length), 1)::float8 AS mean_length FROM passage
    ), narrow AS (
        SELECT seq, words, is_question, -(embedding <#> query_embedding) AS cosine
        FROM memory_sentence WHERE owner_id = of_owner AND space_id = in_space ORDER BY seq OFFSET 0
    ), wide AS (
        SELECT seq, words, is_question, CASE WHEN closeness <= 200 THEN (
                   SELECT -(embedding <#> query_embedding) FROM memory_widesentence exact
                   WHERE exact.owner_id = of_owner AND exact.space_id = in_space
                     AND exact.seq = sketched.seq AND exact.place = sketched.place
               ) ELSE cos(pi() * distance / vector_dims(query_embedding)) END AS cosine
        FROM (
            SELECT *, row_number() OVER (ORDER BY distance) AS closeness
            FROM (
                SELECT seq, place, words, is_question, sketch <~> binary_quantize(query_embedding) AS distance
                FROM memory_widesentence WHERE owner_id = of_owner AND space_id = in_space OFFSET 0
            ) AS by_sketch
        ) AS sketched ORDER BY seq OFFSET 0
    ), meaning AS (
        SELECT seq, max(cosine) AS best, greatest(max(cosine) FILTER (WHERE is_question), 0) AS question, sum(cosine * words) AS mass
        FROM (SELECT * FROM narrow UNION ALL SELECT * FROM wide) AS sentence
        GROUP BY seq
    ), posting AS MATERIALIZED (
        SELECT term, seq, frequency::float8, in_question
        FROM memory_posting
        WHERE owner_id = of_owner AND term = ANY(query_terms)
          AND (in_session IS NULL OR EXISTS (SELECT FROM passage WHERE passage.seq = memory_posting.seq))
    ), rarity AS MATERIALIZED (
        SELECT asked.term, ln(1 + (corpus.passages - count(posting.seq) + 0.5) / (count(posting.seq) + 0.5)) AS idf
        FROM corpus CROSS JOIN unnest(query_terms) AS asked (term) LEFT JOIN posting USING (term)
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
               lag(seq) OVER in_order IS DISTINCT FROM seq - 1 AS opens,
               lag(coalesce(meaning.question, 0) + coalesce(words.share_in_questions, 0)) OVER in_order AS asked_before,
               max(coalesce(meaning.best, 0)) OVER in_order AS session_meaning
        FROM passage LEFT JOIN meaning USING (seq) LEFT JOIN words USING (seq) LEFT JOIN nearby USING (seq)
        WINDOW in_order AS (PARTITION BY session ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ), ranked AS (
        SELECT *, own_score + {joined_score} AS score
        FROM found
        WHERE is_wanted
        ORDER BY score DESC, seq
        LIMIT most
    )
    SELECT passage.id, passage.owner_id, ranked.seq, origin::text, source_id, turn_id, speaker::text, said_at, text, score,
           ARRAY[{features}]::float8[]
    FROM ranked, LATERAL (SELECT * FROM memory_passage WHERE owner_id = of_owner AND seq = ranked.seq OFFSET 0) AS passage
    ORDER BY score DESC, ranked.seq;
END $$;
COMMENT ON FUNCTION rank_memory IS
    'The passages of one owner (memory_owner.id) with the highest scores for a question, the best first: what chats recall. `weights` '
    'holds the weight of each feature by name, {"words": 2, ...} (memory/weights.py); `features` their values, in the order of that file. '
    'The query is embedded by the model of the space `in_space`, query_terms are the stems of its content words.';
"""

# Whose memories there are: one row for each owner, whatever it has; none where no vectors are in use yet.
OWNERS = """
CREATE FUNCTION memory_owners(of_agent text, of_subject bigint, of_conversation bigint, collections text[])
RETURNS TABLE (space_id integer, model text, dimensions integer, owner_id bigint, kind text, user_name text, agent_name text)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT space.id::integer, space.model::text, space.dimensions::integer,
           owner.id, owner.kind::text, owner.user_name::text, owner.agent_name::text
    FROM memory_embeddingspace space
    CROSS JOIN (
        SELECT * FROM memory_owner WHERE kind = 'person' AND agent = of_agent AND subject_id = coalesce(
            of_subject, (SELECT subject_id FROM memory_conversation WHERE id = of_conversation AND agent = of_agent)
        )
        UNION ALL SELECT * FROM memory_owner WHERE kind = 'agent' AND agent = of_agent
        UNION ALL SELECT * FROM memory_owner WHERE kind = 'shared' AND collection = ANY(collections)
    ) AS owner
    WHERE space.is_active;
END $$;
COMMENT ON FUNCTION memory_owners IS
    'Whose memories a question to an agent may draw on: a person''s (or that of a conversation), the agent''s own, and shared collections.';
"""
# Which of them have any, and which have more than what was said in the turns that the prompt may hold anyway. What counts as said in a
# session: besides its turns, what was read from them, and what somebody noted by hand. Each owner is looked up in an index, however
# much others have.
HOLDERS = """
CREATE FUNCTION memory_holders(owners bigint[], sessions bigint[], in_view uuid[])
RETURNS TABLE (owner_id bigint, has_more boolean)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT owner.id, EXISTS (
        SELECT FROM memory_passage
        WHERE owner_id = owner.id AND valid_until IS NULL AND {of_session} AND (turn_id IS NULL OR turn_id <> ALL(in_view))
    )
    FROM unnest(owners, sessions) AS owner (id, session)
    WHERE EXISTS (SELECT FROM memory_passage WHERE owner_id = owner.id AND valid_until IS NULL AND {of_session});
END $$;
COMMENT ON FUNCTION memory_holders IS
    'Which of these owners have memories (of a session, where one is given), and which have some that are not of the turns in_view.';
""".replace(
    "{of_session}",
    """(
            owner.session IS NULL OR session = owner.session OR seq < 0 AND (
                turn_id IS NULL OR EXISTS (SELECT FROM memory_turn turn WHERE turn.id = turn_id AND turn.conversation_id = owner.session)
            )
        )""",
)


def _score(features):
    return " + ".join(f"weight_of_{name} * ({expression})" for name, expression in features.items())


def statement():
    features = OWN | JOINED
    filled = CREATE.replace("{weights}", "\n    ".join(f"weight_of_{name} CONSTANT float8 := weights->>'{name}';" for name in ORDER))
    filled = filled.replace("{own_score}", _score(OWN)).replace("{joined_score}", _score(JOINED))
    return filled.replace("{features}", ", ".join(features[name] for name in ORDER))


class Migration(migrations.Migration):

    dependencies = [("memory", "0009_conversations_by_session")]

    operations = [
        migrations.RunSQL(statement(), "DROP FUNCTION rank_memory"),
        migrations.RunSQL(OWNERS, "DROP FUNCTION memory_owners"),
        migrations.RunSQL(HOLDERS, "DROP FUNCTION memory_holders"),
    ]
