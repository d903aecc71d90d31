from django.db import migrations, models

COLUMNS = (
    *("session", "length", "window_length", "word_count", "turn", "valid_until", "said_at", "spans"),
    *("speaker", "asks", "has_time", "has_number", "has_reason", "has_name"),
)


class Migration(migrations.Migration):
    """What is ranked is read from one index, without a visit to the table for each passage."""

    dependencies = [("memory", "0012_broken_turns")]

    operations = [
        migrations.AddConstraint("passage", models.UniqueConstraint(fields=["owner", "seq"], include=COLUMNS, name="passage_in_order")),
        migrations.RemoveConstraint("passage", "passage_place_once"),
    ]
