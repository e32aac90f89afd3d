from __future__ import annotations

from storage.models import Content
from tests.cluster import ClusterUnderTest, content_of


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
