from django.db import migrations, models
from django.db.models import F
from django.db.models.functions import Now


def begin_with_creation(apps, schema_editor):
    apps.get_model("storage", "File").objects.update(modified_at=F("created_at"))


class Migration(migrations.Migration):
    dependencies = [("storage", "0005_tallies")]

    operations = [
        migrations.AddField(
            model_name="file",
            name="modified_at",
            field=models.DateTimeField(db_default=Now(), help_text="when its name or factor was changed last"),
        ),
        migrations.RunPython(begin_with_creation, migrations.RunPython.noop, elidable=True),
    ]
