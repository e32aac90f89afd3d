from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("storage", "0011_gatherings")]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="kind",
            field=models.CharField(
                choices=[
                    ("ingest", "Ingest"),
                    ("ingest segment", "Ingest Segment"),
                    ("repair", "Repair"),
                    ("refresh health", "Refresh Health"),
                    ("rebalance", "Rebalance"),
                    ("rebuild sketch", "Rebuild Sketch"),
                    ("repair all", "Repair All"),
                    ("trace losses", "Trace"),
                    ("reconcile", "Reconcile"),
                    ("drain", "Drain"),
                    ("reclaim", "Reclaim"),
                    ("rebalance all", "Rebalance All"),
                    ("census", "Census"),
                    ("audit", "Audit"),
                    ("adopt", "Adopt"),
                ],
                max_length=32,
            ),
        ),
    ]
