"""The number of nodes is apart from NUM_NODES at the last start: a start adds nodes only when NUM_NODES was raised."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("storage", "0015_keys")]

    operations = [
        migrations.AlterField(
            model_name="cluster",
            name="num_nodes",
            field=models.PositiveIntegerField(help_text="nodes that are not retired"),
        ),
        migrations.AddField(
            model_name="cluster",
            name="asked_nodes",
            field=models.PositiveIntegerField(default=0, help_text="NUM_NODES at the last start"),
            preserve_default=False,
        ),
        # So far the two had to be equal.
        migrations.RunSQL("UPDATE storage_cluster SET asked_nodes = num_nodes", migrations.RunSQL.noop),
    ]
