from django.db import migrations, models

COLUMNS = (
    *("session", "length", "window_length", "word_count", "turn", "valid_until", "said_at", "spans"),
    *("speaker", "asks", "has_time", "has_number", "has_reason", "has_name"),
)
# A build that failed leaves an index behind that holds nothing.
CLEAR = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('passage_in_order') AND NOT indisvalid) THEN
            DROP INDEX passage_in_order;
        END IF;
    END $$
"""
# What Django makes of the constraint below, but for CONCURRENTLY.
BUILD = """
    CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS passage_in_order ON memory_passage (owner_id, seq) INCLUDE (
        session, length, window_length, word_count, turn_id, valid_until, said_at, spans,
        speaker, asks, has_time, has_number, has_reason, has_name
    )
"""


class Migration(migrations.Migration):
    """What is ranked is read from one index, without a visit to the table for each passage.

    The index is built while memories are written. Should that fail, what it left behind goes before it is built again.
    """

    atomic = False
    dependencies = [("memory", "0012_broken_turns")]

    operations = [
        migrations.RunSQL(CLEAR, migrations.RunSQL.noop),
        migrations.SeparateDatabaseAndState(
            [migrations.RunSQL(BUILD, "DROP INDEX CONCURRENTLY IF EXISTS passage_in_order")],
            [
                migrations.AddConstraint(
                    "passage", models.UniqueConstraint(fields=["owner", "seq"], include=COLUMNS, name="passage_in_order")
                )
            ],
        ),
        migrations.SeparateDatabaseAndState(
            [
                migrations.RunSQL(
                    "ALTER TABLE memory_passage DROP CONSTRAINT IF EXISTS passage_place_once",
                    "ALTER TABLE memory_passage ADD CONSTRAINT passage_place_once UNIQUE (owner_id, seq)",
                )
            ],
            [migrations.RemoveConstraint("passage", "passage_place_once")],
        ),
    ]
