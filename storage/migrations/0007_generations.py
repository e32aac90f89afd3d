import uuid

from django.db import migrations, models

import storage.models.clock

# A generation of an earlier release was a number; the volumes that carry one are read as carrying this token.
KNOWN = """
INSERT INTO storage_generation (token)
SELECT lpad(to_hex(number), 32, '0')::uuid
  FROM generate_series(1, (SELECT max(generation) FROM storage_cluster)) AS number
"""


class Migration(migrations.Migration):
    dependencies = [("storage", "0006_file_modified_at")]

    operations = [
        migrations.CreateModel(
            name="Generation",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("token", models.UUIDField(default=uuid.uuid4, unique=True)),
                ("begun_at", models.DateTimeField(db_default=storage.models.clock.Clock())),
            ],
        ),
        migrations.RunSQL(KNOWN, migrations.RunSQL.noop),
        migrations.RemoveField(model_name="cluster", name="generation"),
        migrations.AddField(
            model_name="node",
            name="generation",
            field=models.BigIntegerField(
                default=0, editable=False, help_text="the last one that the volume was given; 0 is none"
            ),
        ),
        migrations.AddField(
            model_name="node",
            name="foreign_writes",
            field=models.BooleanField(
                default=False,
                editable=False,
                help_text="the volume was written to under a database that this one does not know: see `manage.py adopt`",
            ),
        ),
    ]
