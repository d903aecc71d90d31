from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ('observability', '0010_doctor_reports'),
    ]

    operations = [
        migrations.CreateModel(
            name='TotalOfConversation',
            fields=[
                ('cost_usd', models.DecimalField(decimal_places=10, max_digits=24)),
                ('first_day', models.DateField()),
                ('last_day', models.DateField()),
                ('conversation_id', models.BigIntegerField(help_text='0: of none.', primary_key=True, serialize=False)),
            ],
        ),
        migrations.CreateModel(
            name='TotalOfPerson',
            fields=[
                ('cost_usd', models.DecimalField(decimal_places=10, max_digits=24)),
                ('first_day', models.DateField()),
                ('last_day', models.DateField()),
                ('subject_id', models.BigIntegerField(help_text='0: of nobody.', primary_key=True, serialize=False)),
            ],
        ),
        migrations.AddField(
            model_name='rollupstate',
            name='totals_upto_xid',
            field=models.BigIntegerField(db_default=0, default=0, help_text='The same of what people and conversations cost in all.'),
        ),
        migrations.AddIndex(
            model_name='usageconversation',
            index=models.Index(fields=['conversation_id', 'day'], name='usage_by_conversation'),
        ),
        migrations.AddIndex(
            model_name='totalofconversation',
            index=models.Index(fields=['-cost_usd', '-last_day'], include=('conversation_id', 'first_day'), name='dearest_conversation'),
        ),
        migrations.AddIndex(
            model_name='totalofperson',
            index=models.Index(fields=['-cost_usd', '-last_day'], include=('subject_id', 'first_day'), name='dearest_person'),
        ),
    ]
