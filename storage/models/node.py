from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from functools import cache

from django.db import models, transaction
from django.db.models import F

from storage.models.cluster import Cluster
from storage.models.statements.prepared import Columns, rows

SAME_SIZE = 0.01  # Placement ignores a change of a file system's size by at most this share of the size.


class Node(models.Model):
    """A named place that holds replicas."""

    class State(models.TextChoices):
        CREATING = "creating"
        ACTIVE = "active"
        DRAINING = "draining"
        RETIRED = "retired"

    node_id = models.CharField(max_length=64, unique=True)
    url = models.CharField(
        max_length=1024, help_text="where the volume is: file:///srv/disk1, or relative to STORAGE_DIR/nodes"
    )
    uuid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    state = models.CharField(max_length=16, choices=State, default=State.CREATING, help_text="what the operator wants")
    online = models.BooleanField(default=False, help_text="what the last probe saw")
    online_changed_at = models.DateTimeField(null=True, editable=False)
    writable = models.BooleanField(default=True, editable=False, help_text="what the last probe saw")
    zone = models.CharField(max_length=64, blank=True, help_text="replicas go to distinct zones first")
    weight = models.FloatField(default=1.0, help_text="share of free space, quantised; 0 is full")
    generation = models.BigIntegerField(
        default=0, editable=False, help_text="the last one that the volume was given; 0 is none"
    )
    foreign_writes = models.BooleanField(
        default=False,
        editable=False,
        help_text="the volume was written to under a database that this one does not know: see `manage.py adopt`",
    )
    file_system = models.CharField(max_length=64, blank=True, editable=False, help_text="what the last probe saw")
    file_system_bytes = models.BigIntegerField(default=0, editable=False, help_text="0 is not known yet")
    sketch_epoch = models.BigIntegerField(default=0, help_text="raised by a writer that could not count")
    chunks = models.BigIntegerField(default=0, help_text="the volume's tally of replicas")
    bytes = models.BigIntegerField(default=0, help_text="the volume's tally of bytes")
    removals = models.BigIntegerField(default=0, editable=False, help_text="replicas that were ever removed from it")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("node_id",)

    def __str__(self) -> str:
        return self.node_id

    @property
    def condition(self) -> str:
        """The state that an operator sees. An active or draining node that does not answer is ``offline``."""
        if self.state in (self.State.ACTIVE, self.State.DRAINING) and not self.online:
            return "offline"
        if self.state == self.State.ACTIVE and not self.writable:
            return "read-only"
        if self.state == self.State.ACTIVE and self.weight == 0:
            return "full"
        return str(self.state)

    def listed_until(self, now: Node) -> tuple[int, int]:
        """The fewest and the most replicas that a listing can have found between two exact tallies of a node.

        A listing finds the replicas that were there before. It may miss replicas that are removed during the listing,
        and may find replicas that are written during the listing. A tally is exact right after all batches have ended.

        Args:
            now: the node after the listing; this object is the node before it.
        """
        removed = now.removals - self.removals
        written = now.chunks - self.chunks + removed
        return min(self.chunks - removed, now.chunks), max(self.chunks + written, now.chunks)

    @classmethod
    def all_with_cluster(cls) -> tuple[Cluster, list[Node]]:
        """The cluster and its nodes at one instant, without nodes that are being created or are retired.

        Raises:
            Cluster.DoesNotExist: the cluster has not been prepared yet.
        """
        cluster, node = _columns()
        pairs = rows(
            f"""
            SELECT {cluster.of("c")}, {node.of("n")}
              FROM storage_cluster c LEFT JOIN storage_node n ON n.state NOT IN ('retired', 'creating')
             ORDER BY n.node_id
            """,  # noqa: S608  the names of our own columns
            [],
        )
        if not pairs:
            raise Cluster.DoesNotExist
        the_cluster = cluster.take(Cluster, iter(pairs[0]))
        assert the_cluster is not None
        nodes = [node.take(cls, iter(row[len(cluster) :])) for row in pairs]
        return the_cluster, [each for each in nodes if each is not None]

    @classmethod
    def accepting_ids(cls) -> set[str]:
        """The ids of the nodes to which new replicas may be written now."""
        active = rows("SELECT node_id FROM storage_node WHERE state = %s", [cls.State.ACTIVE.value])
        return {node_id for (node_id,) in active}

    @classmethod
    def retire(cls, node_id: str) -> None:
        """Take a node out of the cluster for good; its id is not used again."""
        with transaction.atomic():
            nodes = cls.objects.filter(node_id=node_id).exclude(state=cls.State.RETIRED)
            if nodes.update(state=cls.State.RETIRED, chunks=0, bytes=0, online=False):
                Cluster.bump_topology()
                Cluster.objects.update(num_nodes=cls.objects.exclude(state=cls.State.RETIRED).count())

    @classmethod
    def record_file_systems(cls, file_systems: Mapping[str, tuple[str, int]]) -> None:
        """Record the file system on which each node lies: node id → (name of the file system, its size in bytes).

        Placement gives nodes on larger file systems more chunks. The size of some file systems (ZFS, Btrfs) changes all
        the time. A change of at most ``SAME_SIZE`` is not recorded, because each change of a weight makes copies
        misplaced.
        """
        for node in cls.objects.filter(node_id__in=list(file_systems)):
            name, size = file_systems[node.node_id]
            differs = abs(size - node.file_system_bytes) > SAME_SIZE * size
            if name != node.file_system or differs:
                cls.objects.filter(pk=node.pk).update(file_system=name, file_system_bytes=size)

    @classmethod
    def distrust_sketches(cls, node_ids: Iterable[str]) -> None:
        """Raise the sketch epoch of these nodes before a write that cannot be counted (RACES 23)."""
        cls.objects.filter(node_id__in=sorted(node_ids)).update(sketch_epoch=F("sketch_epoch") + 1)

    @classmethod
    def tally(cls, deltas: Mapping[str, tuple[int, int]]) -> None:
        """Add (replicas, bytes) to the tally of each node. Negative numbers are removals.

        A crash may lose an addition; the next sketch rebuild corrects the tally.
        """
        changes = [(node_id, chunks, size) for node_id, (chunks, size) in sorted(deltas.items()) if chunks or size]
        if not changes:
            return
        node_ids, chunks, sizes = (list(column) for column in zip(*changes, strict=True))
        rows(
            """
            WITH delta AS (
                     SELECT * FROM unnest(%(ids)s::text[], %(chunks)s::bigint[], %(bytes)s::bigint[])
                              AS d(node_id, chunks, bytes)
                 ),
                 held AS (
                     SELECT id FROM storage_node WHERE node_id = ANY(%(ids)s::text[]) ORDER BY id FOR NO KEY UPDATE
                 )
            UPDATE storage_node n
               SET chunks = greatest(0, n.chunks + d.chunks), bytes = greatest(0, n.bytes + d.bytes),
                   removals = n.removals + greatest(0, -d.chunks)
              FROM delta d, held h, set_config('synchronous_commit', 'off', true) AS lazily
             WHERE n.node_id = d.node_id AND n.id = h.id
            """,
            {"ids": node_ids, "chunks": chunks, "bytes": sizes},
        )


@cache
def _columns() -> tuple[Columns, Columns]:
    return Columns(Cluster), Columns(Node)
