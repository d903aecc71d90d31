from django.db import migrations, models


class Migration(migrations.Migration):
    """What went wrong today, and on each of the last days, is found among a million turns without reading them."""

    dependencies = [("memory", "0011_traces_of_turns")]

    operations = [
        migrations.AddIndex(
            "turn",
            models.Index(fields=["agent", "created_at"], condition=models.Q(state__in=("failed", "interrupted")), name="turn_broken"),
        ),
    ]
