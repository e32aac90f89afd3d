from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from storage.models import Content
from storage.models.clock import Clock
from storage.models.content import Health
from tests.support.cluster import ClusterUnderTest, content_of


def test_outdated_summaries_come_worst_first_whatever_their_epochs(cluster: ClusterUnderTest) -> None:
    seen = ((3, 5), (1, 2), (2, 7), (0, 7), (1, -1), (2, 2))  # (replicas, epoch of the summary)
    for number, (replicas, epoch) in enumerate(seen):
        file = cluster.upload(content_of(1, str(number)))
        Content.objects.filter(pk=file.content_id).update(min_replication=replicas, health_epoch=epoch)
    cluster.accept(content_of(1, "under ingest"))

    def outdated(epoch: int, most: int = 10) -> list[tuple[int, int]]:
        return [(c.min_replication, c.health_epoch) for c in Content.objects.outdated(epoch, most)]

    assert outdated(7) == [(1, 2), (1, -1), (2, 2), (3, 5)]
    assert outdated(8) == [(0, 7), (1, 2), (1, -1), (2, 7), (2, 2), (3, 5)]
    assert outdated(8, most=2) == [(0, 7), (1, 2)]
    assert outdated(-1) == []
    assert {c.target for c in Content.objects.outdated(8, 10)} == {3}


def seen(retrievable: bool, epoch: int = 10**6) -> Health:
    return Health(retrievable, int(retrievable), float(retrievable), int(retrievable), epoch)


def test_since_when_a_content_is_lost_is_kept_until_it_is_retrievable(cluster: ClusterUnderTest) -> None:
    content = cluster.upload(content_of(1)).content

    def lost_at() -> datetime | None:
        content.refresh_from_db()
        return content.lost_at

    assert lost_at() is None
    content.record_health(seen(False))
    first = lost_at()
    assert first is not None
    content.record_health(seen(False))
    Content.objects.become_ready({content.pk: seen(False)})
    assert lost_at() == first
    for record in (content.record_health, lambda health: Content.objects.become_ready({content.pk: health})):
        record(seen(True))
        assert lost_at() is None
        record(seen(False))
        assert lost_at() is not None


@pytest.mark.parametrize(
    ("lost", "looked", "due"),
    [
        (timedelta(seconds=10), timedelta(seconds=10), False),
        (timedelta(seconds=61), timedelta(seconds=61), True),
        (timedelta(minutes=100), timedelta(minutes=30), False),
        (timedelta(minutes=100), timedelta(minutes=34), True),
        (timedelta(days=300), timedelta(hours=23), False),
        (timedelta(days=300), timedelta(hours=25), True),
        (timedelta(hours=-5), timedelta(hours=-5), True),  # PostgreSQL's clock was set back after the last look.
    ],
)
def test_a_lost_content_is_looked_at_again_ever_more_seldom(
    cluster: ClusterUnderTest, lost: timedelta, looked: timedelta, due: bool
) -> None:
    content = cluster.upload(content_of(1)).content
    content.record_health(seen(False))
    Content.objects.update(lost_at=Clock() - lost, health_at=Clock() - looked)
    assert Content.objects.look_again_at_lost(10) == due
    content.refresh_from_db()
    assert (content.health_epoch == -1) == due
    assert Content.objects.look_again_at_lost(10) == 0, "it waits to be looked at"


def test_retrievable_contents_are_not_looked_at_again_and_lost_ones_a_number_at_a_time(
    cluster: ClusterUnderTest,
) -> None:
    for number in range(5):
        content = cluster.upload(content_of(1, str(number))).content
        content.record_health(seen(number == 0))
    long_ago = Clock() - timedelta(days=5)
    Content.objects.update(health_at=long_ago)
    assert [Content.objects.look_again_at_lost(3) for _ in range(3)] == [3, 1, 0]
