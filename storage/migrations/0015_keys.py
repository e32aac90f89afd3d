import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('storage', '0014_names'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='job',
            name='owner',
            field=models.ForeignKey(db_index=False, help_text='the user who has asked for it, and may look at it; empty for maintenance', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='job',
            name='subject',
            field=models.CharField(help_text='one queued job at most for each, and each owner', max_length=128, null=True),
        ),
        migrations.CreateModel(
            name='Key',
            fields=[
                ('id', models.CharField(editable=False, max_length=20, primary_key=True, serialize=False)),
                ('name', models.CharField(blank=True, help_text='the person or program that has the key', max_length=100)),
                ('scopes', models.CharField(help_text='what the key allows: words with spaces in between', max_length=100)),
                ('digest', models.BinaryField(help_text='the SHA-256 of the secret')),
                ('sealed', models.BinaryField(help_text='the secret, encrypted under SECRET_KEY')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('expires_at', models.DateTimeField(blank=True, help_text='empty: the key does not expire', null=True)),
                ('last_used_at', models.DateTimeField(editable=False, null=True)),
                ('revoked_at', models.DateTimeField(editable=False, null=True)),
                ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='keys', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('created_at', 'id'),
            },
        ),
    ]
