from django.db import migrations, models


class Migration(migrations.Migration):
    """When a model is to read facts in a turn: the mark is the queue."""

    dependencies = [("memory", "0007_names_of_people")]

    operations = [
        migrations.AddField(
            "turn",
            "facts_due_at",
            models.DateTimeField(blank=True, help_text="When a model is to read facts in it; empty once it did.", null=True),
        ),
        migrations.AddIndex(
            "turn",
            models.Index(fields=["facts_due_at"], condition=models.Q(facts_due_at__isnull=False), name="turn_to_read"),
        ),
    ]
