from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("storage", "0009_content_lost_at")]

    operations = [
        migrations.AddField(
            model_name="node",
            name="file_system",
            field=models.CharField(blank=True, editable=False, help_text="what the last probe saw", max_length=64),
        ),
        migrations.AddField(
            model_name="node",
            name="file_system_bytes",
            field=models.BigIntegerField(default=0, editable=False, help_text="0 is not known yet"),
        ),
    ]
