from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("observability", "0011_totals"),
    ]

    operations = [
        migrations.AlterField(
            model_name="budget",
            name="key",
            field=models.CharField(
                blank=True,
                default="",
                help_text="Its public id; of users: only with this key. Keys that it made or that take its place spend from it, too.",
                max_length=40,
                verbose_name="API key",
            ),
        ),
        migrations.CreateModel(
            name="SharedBudget",
            fields=[
                ("pk", models.CompositePrimaryKey("key", "payer", blank=True, editable=False, primary_key=True, serialize=False)),
                ("key", models.CharField(help_text="The public id of the one that spends.", max_length=40)),
                ("payer", models.CharField(help_text="The public id of the one whose budgets it spends from.", max_length=40)),
            ],
            options={
                "indexes": [models.Index(fields=["payer", "key"], name="shared_budget_by_payer")],
            },
        ),
    ]
