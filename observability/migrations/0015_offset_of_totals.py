from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("observability", "0014_budget_functions"),
    ]

    operations = [
        migrations.AddField(
            model_name="rollupstate",
            name="totals_xid_offset",
            field=models.BigIntegerField(db_default=0, default=0, help_text="What it was when the totals were added to last."),
        ),
    ]
