from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("storage", "0019_quotas")]

    operations = [
        migrations.AddField(
            model_name="node",
            name="removals",
            field=models.BigIntegerField(
                default=0, editable=False, help_text="replicas that were ever removed from it"
            ),
        ),
    ]
