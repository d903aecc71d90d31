from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """What went wrong today, and on each of the last days, is found among a million turns without reading them.

    The index is built while turns are written. Should that fail, what it left behind goes before it is built again.
    """

    atomic = False
    dependencies = [("memory", "0011_traces_of_turns")]

    operations = [
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS turn_broken", migrations.RunSQL.noop),
        AddIndexConcurrently(
            "turn",
            models.Index(fields=["agent", "created_at"], condition=models.Q(state__in=("failed", "interrupted")), name="turn_broken"),
        ),
    ]
