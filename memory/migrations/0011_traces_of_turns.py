"""What a turn sent, and what was done for it.

What was sent holds what was recalled, so it goes as soon as one of those memories does, whoever deletes that and how. The function
runs as who migrated: the role that deletes memories (0004) may not touch turns.
"""

from django.db import migrations, models

DROP_SENT = """
CREATE FUNCTION memory_drop_sent() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE memory_turn SET sent = NULL
    WHERE id IN (
        SELECT id FROM memory_turn WHERE id IN (SELECT turn_id FROM gone) AND sent IS NOT NULL ORDER BY id FOR NO KEY UPDATE
    );
    RETURN NULL;
END $$;

-- Temporary tables last: otherwise one named memory_turn would take its place.
DO $$ BEGIN EXECUTE format('ALTER FUNCTION memory_drop_sent() SET search_path = %I, pg_temp', current_schema()); END $$;

CREATE TRIGGER drop_sent AFTER DELETE ON memory_recalled REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION memory_drop_sent();
"""
KEEP_SENT = """
DROP TRIGGER drop_sent ON memory_recalled;
DROP FUNCTION memory_drop_sent();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('memory', '0010_rank_memory'),
    ]

    operations = [
        migrations.AddField(
            model_name='turn',
            name='sent',
            field=models.TextField(blank=True, editable=False, help_text="What the model was sent: the request's JSON body, byte for byte, without its headers.", null=True),
        ),
        migrations.AddField(
            model_name='turn',
            name='trace',
            field=models.JSONField(blank=True, editable=False, help_text='What was done for it and when: steps with the moment when each ended, calls with the moment when each began (ms since the question), and what was decided. Empty where it is not kept, or not any more.', null=True),
        ),
        migrations.AddIndex(
            model_name='turn',
            index=models.Index(condition=models.Q(('trace__isnull', False)), fields=['agent', 'created_at'], name='turn_with_trace'),
        ),
        migrations.AddConstraint(
            model_name='turn',
            constraint=models.CheckConstraint(condition=models.Q(('sent', None), ('trace__isnull', False), _connector='OR'), name='turn_sent_has_a_trace'),
        ),
        migrations.RunSQL(DROP_SENT, KEEP_SENT),
    ]
