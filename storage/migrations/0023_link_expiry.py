from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("storage", "0022_resumable_uploads")]

    operations = [
        migrations.AddIndex(model_name="link", index=models.Index(fields=["expires_at"], name="link_expires")),
    ]
