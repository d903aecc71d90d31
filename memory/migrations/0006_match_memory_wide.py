from django.db import migrations

# `match_memory` for vectors of any length, of one owner or of all that the caller may see.
#
# Row-level security decides who may be seen: a role that it holds sees those whom `app.owners` names, for the transaction
# (BEGIN; SELECT set_config('app.owners', '{17}', true); …) and nobody without; a superuser sees everybody. So the form without
# an owner cannot show more than its caller may read anyway.
#
# Long vectors (memory_widesentence) are ranked by the share of signs that differ, and the closest are compared exactly. There
# is one query for each width, because only that of the active space is to be planned and run.
CREATE = """
CREATE FUNCTION match_memory(
    query_embedding halfvec, match_threshold float8 DEFAULT 0, match_count integer DEFAULT 5, owner bigint DEFAULT NULL
)
RETURNS TABLE (passage bigint, said_at timestamptz, speaker text, text text, similarity float8, owner_id bigint)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    space memory_embeddingspace;
    owners bigint[];
    most integer := greatest(match_count, 0);
BEGIN
    SELECT * INTO space FROM memory_embeddingspace WHERE is_active;
    IF space.id IS NULL THEN
        RETURN;
    END IF;
    IF vector_dims(query_embedding) <> space.dimensions THEN
        RAISE EXCEPTION 'query_embedding has % dimensions; memories are embedded by % with %',
            vector_dims(query_embedding), space.model, space.dimensions USING ERRCODE = 'data_exception';
    END IF;
    owners := CASE WHEN match_memory.owner IS NOT NULL THEN ARRAY[match_memory.owner]
                   ELSE coalesce(NULLIF(current_setting('app.owners', true), '')::bigint[], ARRAY(SELECT id FROM memory_owner)) END;
    IF space.dimensions <= 1300 THEN
        RETURN QUERY
        SELECT found.id, found.said_at, found.speaker::text, found.text, closest.similarity, found.owner_id
        FROM (
            SELECT sentence.owner_id, sentence.seq, max(1 - (sentence.embedding <=> query_embedding)) AS similarity
            FROM memory_sentence sentence
            WHERE sentence.owner_id = ANY (owners) AND sentence.space_id = space.id
            GROUP BY sentence.owner_id, sentence.seq
        ) AS closest
        JOIN memory_passage found ON found.owner_id = closest.owner_id AND found.seq = closest.seq AND found.valid_until IS NULL
        WHERE closest.similarity >= match_threshold
        ORDER BY closest.similarity DESC, found.owner_id, found.seq
        LIMIT most;
    ELSE
        RETURN QUERY
        SELECT found.id, found.said_at, found.speaker::text, found.text, closest.similarity, found.owner_id
        FROM (
            SELECT exact.owner_id, exact.seq, max(1 - (exact.embedding <=> query_embedding)) AS similarity
            FROM (
                SELECT sketched.owner_id, sketched.seq, sketched.place
                FROM memory_widesentence sketched
                WHERE sketched.owner_id = ANY (owners) AND sketched.space_id = space.id
                ORDER BY sketched.sketch <~> binary_quantize(query_embedding), sketched.owner_id, sketched.seq, sketched.place
                LIMIT greatest(200, 20 * most)
            ) AS near
            JOIN memory_widesentence exact ON exact.owner_id = near.owner_id AND exact.space_id = space.id
                AND exact.seq = near.seq AND exact.place = near.place
            GROUP BY exact.owner_id, exact.seq
        ) AS closest
        JOIN memory_passage found ON found.owner_id = closest.owner_id AND found.seq = closest.seq AND found.valid_until IS NULL
        WHERE closest.similarity >= match_threshold
        ORDER BY closest.similarity DESC, found.owner_id, found.seq
        LIMIT most;
    END IF;
END $$;
COMMENT ON FUNCTION match_memory IS
    'The passages whose best sentence has at least this cosine with the query, the closest first: of one owner (memory_owner.id), or '
    'of all that row-level security lets the caller see. The query must be embedded by the model of the active row of '
    'memory_embeddingspace.';
"""
OLD = """
CREATE FUNCTION match_memory(query_embedding halfvec, match_threshold float8, match_count integer, owner bigint)
RETURNS TABLE (passage bigint, said_at timestamptz, speaker text, text text, similarity float8)
LANGUAGE sql STABLE AS $$
    SELECT passage.id, passage.said_at, passage.speaker, passage.text, closest.similarity
    FROM (
        SELECT seq, max(1 - (embedding <=> query_embedding)) AS similarity
        FROM memory_sentence
        WHERE owner_id = match_memory.owner AND space_id = (SELECT id FROM memory_embeddingspace WHERE is_active)
        GROUP BY seq
        HAVING max(1 - (embedding <=> query_embedding)) >= match_threshold
        ORDER BY similarity DESC, seq
        LIMIT match_count
    ) AS closest
    JOIN memory_passage passage ON passage.owner_id = match_memory.owner AND passage.seq = closest.seq
    ORDER BY closest.similarity DESC, closest.seq
$$;
"""
DROP = "DROP FUNCTION match_memory"


class Migration(migrations.Migration):
    dependencies = [("memory", "0005_sessions_of_subjects")]

    operations = [migrations.RunSQL(f"{DROP};{CREATE}", f"{DROP};{OLD}")]
