import django.db.models.deletion
import storage.models.clock
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('storage', '0021_holds'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name='upload',
            name='state',
            field=models.CharField(choices=[('receiving', 'Receiving'), ('resumable', 'Resumable'), ('accepted', 'Accepted')], default='receiving', max_length=16),
        ),
        migrations.CreateModel(
            name='Resumable',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('name', models.TextField(help_text="the file's name; null if the client gave none", null=True)),
                ('metadata', models.TextField(blank=True, help_text='Upload-Metadata, as the client sent it')),
                ('length', models.BigIntegerField(help_text='bytes of the whole body; null if not known yet', null=True)),
                ('offset', models.BigIntegerField(default=0, help_text='bytes that are durable in staging')),
                ('checksums', models.BinaryField(default=b'', help_text='CRC-32 of each whole piece after the last segment')),
                ('checksum', models.BigIntegerField(default=0, help_text='CRC-32 of the piece that has begun to arrive')),
                ('segments', models.IntegerField(default=0, help_text='segments that were cut off')),
                ('writer', models.UUIDField(default=uuid.uuid4, help_text='the token of the request that may write')),
                ('is_partial', models.BooleanField(default=False, help_text='whether it becomes a part of another upload')),
                ('parts', models.JSONField(help_text='ids of the uploads that it is joined from', null=True)),
                ('created_at', models.DateTimeField(db_default=storage.models.clock.Clock())),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('job', models.ForeignKey(help_text='stores what has arrived', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='storage.job')),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
    ]
