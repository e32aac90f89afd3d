from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("storage", "0017_share_links"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="cluster",
            options={"verbose_name_plural": "cluster"},
        ),
    ]
