from django.db import migrations, models

import storage.models.kinds

# Until now, a job's priority was the position of its kind among all kinds.
KINDS = (
    "ingest",
    "ingest segment",
    "repair",
    "refresh health",
    "rebalance",
    "rebuild sketch",
    "repair all",
    "trace losses",
    "reconcile",
    "drain",
    "reclaim",
    "rebalance all",
    "census",
    "audit",
    "adopt",
)
OPEN = ("queued", "running")  # Of jobs that have ended, nothing reads the priority.


def positions_to_tens(apps, schema_editor):
    open_jobs = apps.get_model("storage", "Job").objects.filter(state__in=OPEN)
    for position, kind in enumerate(KINDS):
        open_jobs.filter(kind=kind).update(priority=10 * (position + 1))


def tens_to_positions(apps, schema_editor):
    open_jobs = apps.get_model("storage", "Job").objects.filter(state__in=OPEN)
    for position, kind in enumerate(KINDS):
        open_jobs.filter(kind=kind).update(priority=position)


class Migration(migrations.Migration):
    dependencies = [("storage", "0012_job_kinds")]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="kind",
            field=models.CharField(choices=storage.models.kinds.choices, max_length=32),
        ),
        migrations.RunPython(positions_to_tens, tens_to_positions, elidable=True),
    ]
