"""A file is one of its owner's names for a content: unique by owner, content and name (RACES 30).

Files are sorted by name and by size, so each of these orders has an index, and the size is in the file's row.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models.functions import Collate

# The triggers count files and set targets. Sizes change neither, and the triggers would copy every row twice.
SIZES = """
ALTER TABLE storage_file DISABLE TRIGGER USER;
UPDATE storage_file f SET size = c.size FROM storage_content c WHERE c.id = f.content_id;
ALTER TABLE storage_file ENABLE TRIGGER USER;
"""

# So far an owner had one file on a content. A body that still arrives has no content yet.
FILES_OF_UPLOADS = """
UPDATE storage_upload u SET file_id = f.id FROM storage_file f
 WHERE f.owner_id = u.owner_id AND f.content_id = u.content_id;
SET CONSTRAINTS ALL IMMEDIATE;
"""


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("storage", "0013_priorities"),
    ]

    operations = [
        migrations.RunSQL("SET LOCAL statement_timeout = 0", migrations.RunSQL.noop),
        migrations.AddField(
            model_name="file",
            name="size",
            field=models.BigIntegerField(
                null=True, editable=False, help_text="bytes, as in the content; files are sorted by it"
            ),
        ),
        migrations.RunSQL(SIZES, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="file",
            name="size",
            field=models.BigIntegerField(editable=False, help_text="bytes, as in the content; files are sorted by it"),
        ),
        migrations.AddField(
            model_name="upload",
            name="file",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="uploads",
                to="storage.file",
            ),
        ),
        migrations.RunSQL(FILES_OF_UPLOADS, migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name="file", name="file_one_per_owner_and_content"),
        migrations.AddConstraint(
            model_name="file",
            constraint=models.UniqueConstraint(fields=("owner", "content", "name"), name="file_one_of_each_name"),
        ),
        migrations.AddIndex(
            model_name="file", index=models.Index("owner", Collate("name", "C"), "id", name="file_by_name")
        ),
        migrations.AddIndex(model_name="file", index=models.Index("owner", "size", "id", name="file_by_size")),
    ]
