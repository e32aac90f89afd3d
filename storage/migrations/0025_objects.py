"""Buckets, objects, multipart uploads and their parts (ADR 31).

A part refers to a content, as a file does. The view ``storage_reference`` has both: whoever asks what refers to a
content asks this view.
"""

import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

REFERENCES = """
CREATE VIEW storage_reference AS
SELECT content_id, replication_factor AS factor, id AS file_id, NULL::bigint AS part_id FROM storage_file
 UNION ALL
SELECT content_id, replication_factor, NULL, id FROM storage_part;

-- The function of migration 0005, which now asks the view.
CREATE OR REPLACE FUNCTION storage_set_targets(contents bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM storage_content WHERE id = ANY(contents) ORDER BY id FOR NO KEY UPDATE;
    UPDATE storage_content c SET target = wanted.target
      FROM (SELECT touched.id, coalesce(max(r.factor), 0) AS target
              FROM unnest(contents) AS touched (id) LEFT JOIN storage_reference r ON r.content_id = touched.id
             GROUP BY touched.id) AS wanted
     WHERE c.id = wanted.id AND c.target <> wanted.target;
END $$;

CREATE FUNCTION storage_tally_objects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'objects', bucket_id, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
      FROM changed GROUP BY bucket_id;
    RETURN NULL;
END $$;

CREATE TRIGGER tally_inserted AFTER INSERT ON storage_object REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_objects();
CREATE TRIGGER tally_deleted AFTER DELETE ON storage_object REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_objects();

-- A part never changes its bucket, its content or its size.
CREATE FUNCTION storage_tally_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO storage_tally (what, key, amount)
    SELECT 'parts', bucket_id, CASE TG_OP WHEN 'INSERT' THEN sum(size) ELSE -sum(size) END
      FROM changed GROUP BY bucket_id HAVING sum(size) <> 0;
    PERFORM storage_set_targets(array_agg(DISTINCT content_id)) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

-- A new place in an object changes no target, and takes no lock.
CREATE FUNCTION storage_tally_changed_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM storage_set_targets(array_agg(DISTINCT content_id)) FROM (
        (SELECT id, content_id, replication_factor FROM now EXCEPT
         SELECT id, content_id, replication_factor FROM before)
    ) AS moved HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE TRIGGER tally_inserted AFTER INSERT ON storage_part REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_parts();
CREATE TRIGGER tally_deleted AFTER DELETE ON storage_part REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_parts();
CREATE TRIGGER tally_updated AFTER UPDATE ON storage_part REFERENCING OLD TABLE AS before NEW TABLE AS now
    FOR EACH STATEMENT EXECUTE FUNCTION storage_tally_changed_parts();
"""

NO_REFERENCES = """
DROP TRIGGER tally_inserted ON storage_object;
DROP TRIGGER tally_deleted ON storage_object;
DROP TRIGGER tally_inserted ON storage_part;
DROP TRIGGER tally_deleted ON storage_part;
DROP TRIGGER tally_updated ON storage_part;
DROP FUNCTION storage_tally_objects(), storage_tally_parts(), storage_tally_changed_parts();

CREATE OR REPLACE FUNCTION storage_set_targets(contents bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM storage_content WHERE id = ANY(contents) ORDER BY id FOR NO KEY UPDATE;
    UPDATE storage_content c SET target = wanted.target
      FROM (SELECT touched.id, coalesce(max(f.replication_factor), 0) AS target
              FROM unnest(contents) AS touched (id) LEFT JOIN storage_file f ON f.content_id = touched.id
             GROUP BY touched.id) AS wanted
     WHERE c.id = wanted.id AND c.target <> wanted.target;
END $$;

DROP VIEW storage_reference;
DELETE FROM storage_tally WHERE what IN ('objects', 'parts');
"""


class Migration(migrations.Migration):

    dependencies = [
        ('storage', '0024_identities'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name='content',
            name='target',
            field=models.PositiveIntegerField(db_default=0, editable=False, help_text='the largest factor among the files and parts; kept by a trigger (ADR 12)'),
        ),
        migrations.AlterField(
            model_name='tally',
            name='what',
            field=models.CharField(choices=[('files', 'files, by the id of their owner'), ('bytes', 'bytes of files, by the id of their owner'), ('objects', 'objects, by the id of their bucket'), ('parts', 'bytes of parts, by the id of their bucket'), ('chunks', 'chunks, condemned ones included; the key is 0'), ('wanted', 'chunks in manifests, by the replicas that their content should have')], max_length=8),
        ),
        migrations.CreateModel(
            name='Bucket',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(db_collation='C', editable=False, max_length=63, unique=True)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('replication_factor', models.PositiveIntegerField(blank=True, help_text='replicas of new objects; empty: REPLICATION_FACTOR', null=True)),
                ('max_bytes', models.PositiveBigIntegerField(blank=True, help_text='empty: as many as its owner may store', null=True, verbose_name='bytes')),
                ('max_objects', models.PositiveBigIntegerField(blank=True, help_text='empty: as many as its owner may store', null=True, verbose_name='objects')),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='buckets', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.CreateModel(
            name='Multipart',
            fields=[
                ('key', models.TextField(db_collation='C', editable=False, help_text='1 to 1,024 bytes of UTF-8, compared as bytes')),
                ('content_type', models.TextField(default='binary/octet-stream')),
                ('headers', models.JSONField(default=dict)),
                ('metadata', models.JSONField(default=dict)),
                ('tags', models.JSONField(default=dict)),
                ('storage_class', models.TextField(default='STANDARD')),
                ('checksums', models.JSONField(default=dict, help_text='algorithm → checksum in base64, as the S3 door shows it')),
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('initiated_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('completed', models.JSONField(help_text='what the client was told about the object', null=True)),
                ('bucket', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='storage.bucket')),
            ],
        ),
        migrations.CreateModel(
            name='Object',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('key', models.TextField(db_collation='C', editable=False, help_text='1 to 1,024 bytes of UTF-8, compared as bytes')),
                ('content_type', models.TextField(default='binary/octet-stream')),
                ('headers', models.JSONField(default=dict)),
                ('metadata', models.JSONField(default=dict)),
                ('tags', models.JSONField(default=dict)),
                ('storage_class', models.TextField(default='STANDARD')),
                ('checksums', models.JSONField(default=dict, help_text='algorithm → checksum in base64, as the S3 door shows it')),
                ('size', models.BigIntegerField(editable=False)),
                ('etag', models.TextField(editable=False, help_text='MD5 in hex; after a multipart upload, also the number of parts')),
                ('modified_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('bucket', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='storage.bucket')),
            ],
            options={
                'ordering': ('bucket', 'key'),
            },
        ),
        migrations.CreateModel(
            name='Part',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.IntegerField(default=0, help_text='its place in the object or in the multipart upload')),
                ('size', models.BigIntegerField(help_text='bytes, as in the content')),
                ('etag', models.TextField(help_text='MD5 in hex')),
                ('checksums', models.JSONField(default=dict, help_text='algorithm → checksum in base64')),
                ('replication_factor', models.PositiveIntegerField()),
                ('modified_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('bucket', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='storage.bucket')),
                ('content', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='parts', to='storage.content')),
                ('multipart', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='parts', to='storage.multipart')),
                ('object', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='parts', to='storage.object')),
            ],
            options={
                'ordering': ('number',),
            },
        ),
        migrations.AddField(
            model_name='upload',
            name='part',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='uploads', to='storage.part'),
        ),
        migrations.AddIndex(
            model_name='multipart',
            index=models.Index(fields=['bucket', 'key', 'id'], name='multipart_by_key'),
        ),
        migrations.AddConstraint(
            model_name='object',
            constraint=models.UniqueConstraint(fields=('bucket', 'key'), name='object_one_of_each_key'),
        ),
        migrations.AddIndex(
            model_name='part',
            index=models.Index(condition=models.Q(('multipart', None), ('object', None)), fields=['id'], name='part_pending'),
        ),
        migrations.AddConstraint(
            model_name='part',
            constraint=models.UniqueConstraint(condition=models.Q(('object__isnull', False)), fields=('object', 'number'), name='part_place_in_object'),
        ),
        migrations.AddConstraint(
            model_name='part',
            constraint=models.UniqueConstraint(condition=models.Q(('multipart__isnull', False)), fields=('multipart', 'number'), name='part_place_in_multipart'),
        ),
        migrations.AddConstraint(
            model_name='part',
            constraint=models.CheckConstraint(condition=models.Q(('object', None), ('multipart', None), _connector='OR'), name='part_of_one_thing'),
        ),
        migrations.RunSQL(REFERENCES, NO_REFERENCES),
    ]
