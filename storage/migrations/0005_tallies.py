"""Totals are stored, and what is looked for among many rows has an index (ADR 12)."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

TRIGGERS = """
-- Chunks: the rows that one statement inserted or deleted. ON CONFLICT passes on only what is new.
CREATE FUNCTION storage_tally_chunks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'chunks', 0, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
      FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE TRIGGER tally_inserted AFTER INSERT ON storage_chunk REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_chunks();
CREATE TRIGGER tally_deleted AFTER DELETE ON storage_chunk REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_chunks();

-- A content's target: the largest factor among its files. The row is locked by a statement of its own, so that the
-- next one sees the files of whoever held it before.
CREATE FUNCTION storage_set_targets(contents bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM storage_content WHERE id = ANY(contents) ORDER BY id FOR NO KEY UPDATE;
    UPDATE storage_content c SET target = wanted.target
      FROM (SELECT touched.id, coalesce(max(f.replication_factor), 0) AS target
              FROM unnest(contents) AS touched (id) LEFT JOIN storage_file f ON f.content_id = touched.id
             GROUP BY touched.id) AS wanted
     WHERE c.id = wanted.id AND c.target <> wanted.target;
END $$;

CREATE FUNCTION storage_tally_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'files', owner_id, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
      FROM changed GROUP BY owner_id;
    PERFORM storage_set_targets(array_agg(DISTINCT content_id)) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION storage_tally_changed_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'files', owner_id, sum(amount)
      FROM (SELECT owner_id, 1 AS amount FROM now UNION ALL SELECT owner_id, -1 FROM before) AS counted
     GROUP BY owner_id HAVING sum(amount) <> 0;
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

CREATE TRIGGER tally_inserted AFTER INSERT ON storage_file REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_files();
CREATE TRIGGER tally_deleted AFTER DELETE ON storage_file REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_files();
CREATE TRIGGER tally_updated AFTER UPDATE ON storage_file REFERENCING OLD TABLE AS before NEW TABLE AS now
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_changed_files();

-- Chunks in manifests by target. A content without a file has target 0, and wants nothing.
CREATE FUNCTION storage_tally_contents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'wanted', target, CASE TG_OP WHEN 'INSERT' THEN sum(chunk_count) ELSE -sum(chunk_count) END
      FROM changed WHERE target > 0 GROUP BY target HAVING sum(chunk_count) <> 0;
    RETURN NULL;
END $$;

CREATE FUNCTION storage_tally_changed_contents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'wanted', target, sum(chunks)
      FROM (SELECT target, chunk_count::bigint AS chunks FROM now
            UNION ALL SELECT target, -chunk_count FROM before) AS counted
     WHERE target > 0 GROUP BY target HAVING sum(chunks) <> 0;
    RETURN NULL;
END $$;

CREATE TRIGGER tally_inserted AFTER INSERT ON storage_content REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_contents();
CREATE TRIGGER tally_deleted AFTER DELETE ON storage_content REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_contents();
CREATE TRIGGER tally_updated AFTER UPDATE ON storage_content REFERENCING OLD TABLE AS before NEW TABLE AS now
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_changed_contents();
"""

NO_TRIGGERS = """
DROP TRIGGER tally_inserted ON storage_chunk;
DROP TRIGGER tally_deleted ON storage_chunk;
DROP TRIGGER tally_inserted ON storage_file;
DROP TRIGGER tally_deleted ON storage_file;
DROP TRIGGER tally_updated ON storage_file;
DROP TRIGGER tally_inserted ON storage_content;
DROP TRIGGER tally_deleted ON storage_content;
DROP TRIGGER tally_updated ON storage_content;
DROP FUNCTION storage_tally_chunks(), storage_tally_files(), storage_tally_changed_files(),
              storage_tally_contents(), storage_tally_changed_contents(), storage_set_targets(bigint[]);
"""

# The triggers, which keep every writer away until this has committed, count the contents from here.
FIRST_COUNT = """
UPDATE storage_content c SET target = wanted.target
  FROM (SELECT content_id, max(replication_factor) AS target FROM storage_file GROUP BY content_id) AS wanted
 WHERE c.id = wanted.content_id;
INSERT INTO storage_tally (what, key, amount)
SELECT 'chunks', 0, count(*) FROM storage_chunk HAVING count(*) > 0
UNION ALL SELECT 'files', owner_id, count(*) FROM storage_file GROUP BY owner_id;
"""

# Parts of names are found through trigrams. Who may not have the extension has a search that reads every name.
TRIGRAMS = """
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX file_name_trigrams ON storage_file USING gin (upper(name::text) gin_trgm_ops);
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
    RAISE WARNING 'names of files are searched without an index: %', SQLERRM;
END $$;
"""


class Migration(migrations.Migration):

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ('storage', '0004_segments'),
    ]

    operations = [
        migrations.RunSQL("SET LOCAL statement_timeout = 0", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='Tally',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('what', models.CharField(choices=[('files', 'files, by the id of their owner'), ('chunks', 'chunks, condemned ones included; the key is 0'), ('wanted', 'chunks in manifests, by the replicas that their content should have')], max_length=8)),
                ('key', models.BigIntegerField()),
                ('amount', models.BigIntegerField()),
            ],
        ),
        migrations.AddField(
            model_name='content',
            name='target',
            field=models.PositiveIntegerField(db_default=0, editable=False, help_text='the largest factor among the files; kept by a trigger (ADR 12)'),
        ),
        migrations.RunSQL(TRIGGERS, NO_TRIGGERS),
        migrations.RunSQL(FIRST_COUNT, migrations.RunSQL.noop),
        migrations.RemoveIndex(
            model_name='content',
            name='content_health_epoch',
        ),
        migrations.AddIndex(
            model_name='content',
            index=models.Index(condition=models.Q(('state', 'ready')), fields=['health_epoch', 'min_replication', 'id'], name='content_health'),
        ),
        migrations.AddIndex(
            model_name='content',
            index=models.Index(condition=models.Q(('chunk_count__gt', 0), ('min_replication__lt', models.F('target')), ('retrievable', True), ('state', 'ready')), fields=['health_epoch', 'min_replication', 'id'], name='content_short'),
        ),
        migrations.AddIndex(
            model_name='content',
            index=models.Index(condition=models.Q(('state', 'ingesting'), ('retrievable', False), _connector='OR'), fields=['state'], name='content_unreadable'),
        ),
        migrations.RemoveIndex(
            model_name='job',
            name='job_subject',
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('subject__isnull', False)), fields=['kind', 'subject'], name='job_subject'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(fields=['created_at', 'id'], name='job_created'),
        ),
        migrations.AddIndex(
            model_name='file',
            index=models.Index(fields=['owner', 'id'], name='file_of_owner'),
        ),
        migrations.AlterField(
            model_name='file',
            name='owner',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='files', to=settings.AUTH_USER_MODEL),
        ),
        migrations.RunSQL(TRIGRAMS, "DROP INDEX IF EXISTS file_name_trigrams"),
    ]
