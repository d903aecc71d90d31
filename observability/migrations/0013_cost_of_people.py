from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ('observability', '0012_shared_budgets'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='usageperson',
            index=models.Index(fields=['day', 'subject_id'], include=('cost_usd',), name='cost_of_people'),
        ),
    ]
