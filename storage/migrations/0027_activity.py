"""Who did what; figures over time; since when a trouble lasts."""

import django.db.models.deletion
import storage.models.clock
import storage.models.fields
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('storage', '0026_key_limits'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Lasting',
            fields=[
                ('name', models.CharField(max_length=100, primary_key=True, serialize=False)),
                ('since', models.DateTimeField(db_default=storage.models.clock.Clock())),
            ],
        ),
        migrations.CreateModel(
            name='Sample',
            fields=[
                ('at', models.DateTimeField(primary_key=True, serialize=False)),
                ('figures', models.JSONField()),
            ],
            options={
                'ordering': ('at',),
            },
        ),
        migrations.CreateModel(
            name='Activity',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_default=storage.models.clock.Clock())),
                ('actor', models.CharField(blank=True, help_text='the name of the user who did it', max_length=150)),
                ('means', models.CharField(blank=True, help_text='the key, or the door', max_length=20)),
                ('action', models.CharField(choices=[('upload', 'Upload'), ('rename', 'Rename'), ('delete', 'Delete'), ('undo', 'Undo'), ('rebalance', 'Rebalance'), ('share', 'Share'), ('revoke link', 'Revoke Link'), ('create key', 'Create Key'), ('rotate key', 'Rotate Key'), ('revoke key', 'Revoke Key'), ('add node', 'Add Node'), ('retire node', 'Retire Node'), ('maintain', 'Maintain'), ('cancel job', 'Cancel Job'), ('retry job', 'Retry Job')], max_length=16)),
                ('subject', models.CharField(help_text="a file's name, a key, a node, the kind of a job", max_length=255)),
                ('file_hash', storage.models.fields.DigestField(null=True)),
                ('detail', models.CharField(blank=True, help_text='the new name, the number of copies', max_length=255)),
                ('owner', models.ForeignKey(db_index=False, help_text='whose thing it was done to; empty for the cluster, which only admins see', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'indexes': [models.Index(fields=['at', 'id'], name='activity_at'), models.Index(fields=['owner', 'at', 'id'], name='activity_of_owner')],
            },
        ),
    ]
