from __future__ import annotations

from importlib import import_module

import pytest
from django.apps import apps

from storage.models import Job

priorities = import_module("storage.migrations.0013_priorities")


def urgent_first() -> list[str]:
    """The subjects of the queued maintenance jobs, in the order in which workers take them."""
    return [str(job.subject) for job in Job.objects.queued(Job.Queue.MAINTENANCE)]


@pytest.mark.django_db
def test_jobs_that_were_queued_before_an_upgrade_keep_their_order_among_new_ones() -> None:
    for position, kind in reversed(list(enumerate(priorities.KINDS))):
        job = Job.request(Job.Kind(kind), f"old {kind}")
        Job.objects.filter(pk=job.pk).update(priority=position)
    before = urgent_first()
    assert before == [f"old {kind}" for kind in priorities.KINDS]
    priorities.positions_to_tens(apps, None)
    assert urgent_first() == before
    Job.request(Job.Kind.REPAIR, "new repair")
    expected = list(before)
    expected.insert(before.index("old repair") + 1, "new repair")
    assert urgent_first() == expected
    priorities.tens_to_positions(apps, None)
    assert [subject for subject in urgent_first() if subject != "new repair"] == before


@pytest.mark.django_db
def test_the_history_of_ended_jobs_is_left_alone() -> None:
    ended = Job.objects.create(kind=Job.Kind.AUDIT, queue=Job.Queue.MAINTENANCE, state=Job.State.SUCCEEDED, priority=13)
    priorities.positions_to_tens(apps, None)
    ended.refresh_from_db()
    assert ended.priority == 13


def test_an_upload_goes_before_its_segments_and_both_before_any_maintenance() -> None:
    assert sorted(Job.Kind, key=lambda kind: kind.priority)[:2] == [Job.Kind.INGEST, Job.Kind.INGEST_SEGMENT]


def test_no_two_kinds_are_equally_urgent() -> None:
    assert len({kind.priority for kind in Job.Kind}) == len(Job.Kind)


def test_a_new_kind_needs_no_migration() -> None:
    """Migrations name the function ``choices`` and list no kinds. If migrations listed the kinds, each new kind would
    need another migration.
    """
    arguments = Job._meta.get_field("kind").deconstruct()[3]
    assert callable(arguments["choices"])
