from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("observability", "0004_what_saved"),
    ]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="counted_prompt_tokens",
            field=models.PositiveIntegerField(
                help_text="The prompt as we count it, of some that the vendor counted too: how far apart the two are is learned from it.",
                null=True,
            ),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(
                condition=models.Q(("counted_prompt_tokens__isnull", False)),
                fields=["provider", "model", "settled_at"],
                name="attempt_counted",
            ),
        ),
    ]
