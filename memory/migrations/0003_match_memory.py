from django.db import migrations

# For other programs of the owner of this database, and for psql. By meaning alone: the server's own recall (memory/ranking.py)
# also counts words, dates and who spoke.
#
#   SELECT * FROM match_memory('[0.1, …]', match_threshold => 0.3, match_count => 5, owner => 17);
CREATE = """
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
COMMENT ON FUNCTION match_memory IS
    'The passages of one owner (memory_owner.id) whose best sentence has at least this cosine with the query, the closest first. '
    'The query must be embedded by the model of the active row of memory_embeddingspace.';
"""


class Migration(migrations.Migration):
    dependencies = [("memory", "0002_long_term_memory")]

    operations = [migrations.RunSQL(CREATE, "DROP FUNCTION match_memory")]
