"""Quotas of owners, and the tally of the bytes of their files (ADR 22)."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# The functions of migration 0005, which now count bytes too.
TALLIES = """
-- No file is written until this has committed, so each file is counted once: here, or by the triggers.
LOCK TABLE storage_file IN SHARE ROW EXCLUSIVE MODE;

CREATE OR REPLACE FUNCTION storage_tally_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT what, owner_id, CASE TG_OP WHEN 'INSERT' THEN sum(amount) ELSE -sum(amount) END
      FROM changed, LATERAL (VALUES ('files', 1::bigint), ('bytes', size)) AS counted (what, amount)
     GROUP BY what, owner_id HAVING sum(amount) <> 0;
    PERFORM storage_set_targets(array_agg(DISTINCT content_id)) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION storage_tally_changed_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT what, owner_id, sum(amount)
      FROM (SELECT owner_id, 1 AS sign, size FROM now UNION ALL SELECT owner_id, -1, size FROM before) AS changed,
           LATERAL (VALUES ('files', sign::bigint), ('bytes', sign * size)) AS counted (what, amount)
     GROUP BY what, owner_id HAVING sum(amount) <> 0;
    -- A new name changes no target, and takes no lock.
    PERFORM storage_set_targets(array_agg(DISTINCT content_id)) FROM (
        (SELECT id, content_id, replication_factor FROM now EXCEPT
         SELECT id, content_id, replication_factor FROM before)
        UNION ALL
        (SELECT id, content_id, replication_factor FROM before EXCEPT
         SELECT id, content_id, replication_factor FROM now)
    ) AS moved HAVING count(*) > 0;
    RETURN NULL;
END $$;

INSERT INTO storage_tally (what, key, amount)
SELECT 'bytes', owner_id, sum(size) FROM storage_file GROUP BY owner_id HAVING sum(size) <> 0;
"""

NO_BYTES = """
LOCK TABLE storage_file IN SHARE ROW EXCLUSIVE MODE;

CREATE OR REPLACE FUNCTION storage_tally_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'files', owner_id, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
      FROM changed GROUP BY owner_id;
    PERFORM storage_set_targets(array_agg(DISTINCT content_id)) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION storage_tally_changed_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'files', owner_id, sum(amount)
      FROM (SELECT owner_id, 1 AS amount FROM now UNION ALL SELECT owner_id, -1 FROM before) AS counted
     GROUP BY owner_id HAVING sum(amount) <> 0;
    PERFORM storage_set_targets(array_agg(DISTINCT content_id)) FROM (
        (SELECT id, content_id, replication_factor FROM now EXCEPT
         SELECT id, content_id, replication_factor FROM before)
        UNION ALL
        (SELECT id, content_id, replication_factor FROM before EXCEPT
         SELECT id, content_id, replication_factor FROM now)
    ) AS moved HAVING count(*) > 0;
    RETURN NULL;
END $$;

DELETE FROM storage_tally WHERE what = 'bytes';
"""


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("storage", "0018_words"),
    ]

    operations = [
        migrations.RunSQL("SET LOCAL statement_timeout = 0", migrations.RunSQL.noop),
        migrations.CreateModel(
            name="Quota",
            fields=[
                (
                    "owner",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="quota",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "max_bytes",
                    models.PositiveBigIntegerField(
                        blank=True,
                        help_text="empty: as many as there is room for",
                        null=True,
                        verbose_name="bytes",
                    ),
                ),
                (
                    "max_files",
                    models.PositiveBigIntegerField(
                        blank=True, help_text="empty: any number", null=True, verbose_name="files"
                    ),
                ),
            ],
            options={
                "ordering": ("owner",),
            },
        ),
        migrations.AlterField(
            model_name="tally",
            name="what",
            field=models.CharField(
                choices=[
                    ("files", "files, by the id of their owner"),
                    ("bytes", "bytes of files, by the id of their owner"),
                    ("chunks", "chunks, condemned ones included; the key is 0"),
                    ("wanted", "chunks in manifests, by the replicas that their content should have"),
                ],
                max_length=8,
            ),
        ),
        migrations.RunSQL(TALLIES, NO_BYTES),
    ]
