"""The files of one folder are found by an index; deletions, and the manifests of deleted contents, are kept a while."""

import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import F, Func
from django.db.models.functions import Collate

import storage.models.clock
import storage.models.fields

FOLDER = Collate(Func(F("name"), template="coalesce(substring(%(expressions)s from '^.*/'), '')"), "C")


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("storage", "0027_activity"),
    ]

    operations = [
        migrations.RunSQL("SET LOCAL statement_timeout = 0", migrations.RunSQL.noop),
        migrations.AddIndex(model_name="file", index=models.Index("owner", FOLDER, "id", name="file_in_folder")),
        migrations.AddIndex(
            model_name="file",
            index=models.Index("owner", FOLDER, Collate("name", "C"), "id", name="file_in_folder_by_name"),
        ),
        migrations.CreateModel(
            name="Remains",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("file_hash", storage.models.fields.DigestField(unique=True)),
                ("size", models.BigIntegerField()),
                ("chunk_size", models.IntegerField()),
                ("chunk_ids", django.contrib.postgres.fields.ArrayField(models.BigIntegerField(), size=None)),
                ("removed_at", models.DateTimeField(db_default=storage.models.clock.Clock(), db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="Deletion",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("file_hash", storage.models.fields.DigestField()),
                ("files", models.JSONField()),
                ("deleted_at", models.DateTimeField(db_default=storage.models.clock.Clock(), db_index=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
        ),
    ]
