from django.db import migrations, models


class Migration(migrations.Migration):
    """0005 took the index along that found a conversation by its session."""

    dependencies = [("memory", "0008_facts_to_read")]

    operations = [
        migrations.AddIndex(
            "conversation",
            models.Index(fields=["owner", "agent", "session_id"], name="conversation_by_session"),
        ),
    ]
