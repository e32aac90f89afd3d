from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("storage", "0008_condemned_factor")]

    operations = [
        migrations.AddField(
            model_name="content",
            name="lost_at",
            field=models.DateTimeField(
                editable=False, help_text="when it was first seen to be unretrievable, if it is so by now", null=True
            ),
        ),
    ]
