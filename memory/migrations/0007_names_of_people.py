from django.db import migrations


class Migration(migrations.Migration):
    """How the admin calls them."""

    dependencies = [("memory", "0006_match_memory_wide")]

    operations = [
        migrations.AlterModelOptions("memoryowner", {"verbose_name": "collection", "verbose_name_plural": "shared knowledge"}),
        migrations.AlterModelOptions("subject", {"verbose_name": "person", "verbose_name_plural": "people"}),
    ]
