"""Free the space of chunks that nothing refers to: move their copies to the trash, and purge the trash (RACES 9–13).

The phases: ``reclaim.mark``, ``reclaim.trash``, ``reclaim.purge``, ``reclaim.forget``.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from storage import counters, phases
from storage.cluster import generations
from storage.cluster.topology import Member, Topology
from storage.counters import Event
from storage.exceptions import ClusterUnavailable, ForeignDatabase, VolumeError
from storage.jobs import maintenance
from storage.models import Chunk, Hold, Job, ManifestEntry, Pin, clock
from storage.models.locks import Lock, free_advisory_lock
from storage.replicas.finding import ask
from storage.replicas.removing import purge_trash, remove_replicas, trashed_at

log = structlog.get_logger(__name__)

CHUNKS_PER_PASS = 1000
CHUNKS_AT_ONCE = 32  # The rows of this many chunks are locked at once, and an upload that has one of the chunks waits.
PURGES_PER_PASS = 2000
HOLD_PATIENCE = 300.0  # A backup waits this many seconds for the end of a pass. A pass on slow disks takes minutes.


@dataclass(frozen=True)
class Plan:
    """The work of one pass.

    Attributes:
        chunks: (hash, size in bytes) of condemned chunks whose grace period is over and that still have no reference.
        members: the nodes that take part.
        absent: the nodes that do not answer. Chunks keep their rows until the absent nodes have been asked too.
    """

    chunks: list[tuple[str, int]]
    members: list[Member]
    absent: list[Member]


@dataclass(frozen=True)
class Trash:
    """The number of ``copies`` in the trash of a node.

    ``due`` of these copies have been in the trash for longer than the grace period.
    """

    node_id: str
    copies: int
    due: int


@dataclass(frozen=True)
class Preview:
    """The things that the next passes would find and remove, for an operator.

    Attributes:
        grace: the grace period in seconds.
        condemned: number of condemned chunks.
        due: number of chunks that the next pass would remove.
        due_bytes: the size of the due chunks, one copy of each.
        is_capped: True if the next pass would reach its limit, so that later passes remove more.
        trash: the trash of each node that answers.
        absent: ids of the nodes that do not answer.
        held_until: the time until which a backup holds reclaim back; None if no backup does.
    """

    grace: float
    condemned: int
    due: int
    due_bytes: int
    is_capped: bool
    trash: list[Trash]
    absent: list[str]
    held_until: datetime | None


@dataclass(frozen=True)
class Outcome:
    """The result of one pass: copies moved to the trash, rows deleted, trash entries purged and bytes freed."""

    removed: int = 0
    forgotten: int = 0
    purged: int = 0
    freed_bytes: int = 0

    @property
    def was_capped(self) -> bool:
        """True if the pass has reached the limit of work per pass, so that more work may be left."""
        return self.forgotten >= CHUNKS_PER_PASS or self.purged >= PURGES_PER_PASS


def plan(topology: Topology, grace: float) -> Plan:
    """Choose the chunks that may be removed.

    Args:
        topology: the nodes.
        grace: the grace period: seconds since a chunk was condemned, by PostgreSQL's clock.

    Raises:
        ForeignDatabase: a volume belongs to another cluster, or was written to under a database that this database does
            not know. In the second case this database may be an older copy, which does not know all that the volumes
            hold.
    """
    members: list[Member] = []
    absent: list[Member] = []
    for member in topology.members:
        try:
            identity = member.lane.call(member.lane.volume.identity)
        except VolumeError:
            absent.append(member)
            continue
        if identity.cluster != member.identity.cluster:
            raise ForeignDatabase(f"{member.node_id} is the volume of another cluster")
        (members if identity.same_volume(member.identity) else absent).append(member)
    generations.require_known(members)
    return Plan(_due(grace), members, absent)


def preview(grace: float) -> Preview:
    """Look at what there is to reclaim, and list the trash. This function changes nothing.

    Raises:
        ForeignDatabase: as for ``plan``.
        VolumeError: a node stopped answering between the plan and the listing of its trash.
    """
    todo = plan(Topology.load(), grace)
    limit = clock.now().timestamp() - grace
    trash = []
    for member in todo.members:
        found = member.lane.call(lambda volume=member.lane.volume: list(volume.trashed()))
        trash.append(Trash(member.node_id, len(found), sum(trashed_at(entry.token) <= limit for entry in found)))
    return Preview(
        grace=grace,
        condemned=Chunk.objects.filter(condemned_at__isnull=False).count(),
        due=len(todo.chunks),
        due_bytes=sum(size for _, size in todo.chunks),
        is_capped=len(todo.chunks) == CHUNKS_PER_PASS,
        trash=trash,
        absent=[member.node_id for member in todo.absent],
        held_until=Hold.last_end(),
    )


def _due(grace: float) -> list[tuple[str, int]]:
    """Select condemned chunks whose grace period is over, in the order of their hashes, beginning at a random hash.

    The rows of chunks stay while a node that does not answer may hold them. If each pass began at the same hash, chunks
    that wait for a silent node could fill every pass. ``Now()`` is constant during the query. With ``Clock()``, which
    advances, PostgreSQL would not use the index.
    """
    due = _unreferenced().filter(condemned_at__lt=Now() - timedelta(seconds=grace)).order_by("hash")
    begin = secrets.token_hex(32)
    chunks = list(due.filter(hash__gte=begin).values_list("hash", "size")[:CHUNKS_PER_PASS])
    rest = CHUNKS_PER_PASS - len(chunks)
    return sorted(chunks + list(due.filter(hash__lt=begin).values_list("hash", "size")[:rest]))


def _unreferenced() -> QuerySet[Chunk]:
    """Select the condemned chunks that no manifest and no pin refers to."""
    return Chunk.objects.filter(
        ~Exists(ManifestEntry.objects.filter(chunk=OuterRef("pk"))),
        ~Exists(Pin.objects.filter(chunk=OuterRef("pk"))),
        condemned_at__isnull=False,
    )


def request() -> Job:
    """Queue a job that makes passes until no chunk and no trash is left to remove."""
    return maintenance.ensure(Job.Kind.RECLAIM, "all")


def hold_back(span: timedelta, patience: float = HOLD_PATIENCE) -> Hold:
    """Begin a hold when no pass is under way. A pass that has made its plan would not see the hold (RACES 39).

    Args:
        span: the length of the hold.
        patience: seconds to wait for the end of a pass.

    Raises:
        ClusterUnavailable: a pass did not end in this time.
    """
    deadline = time.monotonic() + patience
    while True:
        with free_advisory_lock(Lock.RECLAIMING) as is_held:
            if is_held:
                return Hold.begin(span)
        if time.monotonic() > deadline:
            raise ClusterUnavailable("a pass of reclaim does not end; try again later")
        time.sleep(0.1)


def reclaim_all(job: Job, grace: float) -> dict[str, int]:
    """Make passes until a pass finds nothing to do; returns sums over all passes, named like the fields of ``Outcome``.

    Raises:
        LeaseLost: the job is another worker's, or was cancelled.
        TurnEnded: more urgent work waits.
        ForeignDatabase: see ``plan``; nothing has been removed.
    """
    result = asdict(Outcome()) | (job.result or {})
    job.result = result
    while (outcome := reclaim(grace)) != Outcome():
        for name, number in asdict(outcome).items():
            result[name] += number
        job.progress(done=result["forgotten"], total=result["forgotten"])
        job.make_way()
    return result


def reclaim(grace: float) -> Outcome:
    """Make one pass. If another process is making a pass, or a backup holds reclaim back, this function does nothing.

    Raises:
        ForeignDatabase: see ``plan``; nothing has been removed.
    """
    with free_advisory_lock(Lock.RECLAIMING) as is_held:
        if not is_held or Hold.last_end():
            return Outcome()
        topology = Topology.load()
        return _execute(topology, plan(topology, grace), grace)


def _execute(topology: Topology, todo: Plan, grace: float) -> Outcome:
    removed = forgotten = purged = freed = 0
    if todo.chunks:
        phases.enter("reclaim.mark")
        for start in range(0, len(todo.chunks), CHUNKS_AT_ONCE):
            sizes = dict(todo.chunks[start : start + CHUNKS_AT_ONCE])
            phases.enter("reclaim.trash")
            removed += _trash_everywhere(topology, todo.members, sizes)
            phases.enter("reclaim.forget")
            forgotten += _forget(topology, sizes)
    phases.enter("reclaim.purge")
    for member in todo.members:
        try:
            entries, size = purge_trash(member, older_than=grace, most=PURGES_PER_PASS)
        except VolumeError as error:
            log.warning("purge.aborted", node=member.node_id, error=str(error))
            continue
        purged, freed = purged + entries, freed + size
    outcome = Outcome(removed, forgotten, purged, freed)
    if outcome != Outcome():
        counters.add(Event.CHUNKS_RECLAIMED, forgotten)
        counters.add(Event.BYTES_RECLAIMED, freed)
        log.info("reclaim.done", removed=removed, forgotten=forgotten, purged=purged, freed_bytes=freed)
    return outcome


def _trash_everywhere(topology: Topology, members: Sequence[Member], sizes: Mapping[str, int]) -> int:
    """Move the copies of condemned chunks to the trash on the nodes that take part; returns how many were moved.

    Args:
        topology: the nodes.
        members: the nodes that take part.
        sizes: chunk hash → size in bytes.
    """
    holders = ask(topology, sizes).holders
    copies = {chunk_hash: [member for member in found if member in members] for chunk_hash, found in holders.items()}
    return remove_replicas(topology, {chunk_hash: found for chunk_hash, found in copies.items() if found})


@transaction.atomic
def _forget(topology: Topology, sizes: Mapping[str, int]) -> int:
    """Delete the rows of chunks that nothing refers to and no node holds; returns the number of deleted rows.

    A node that does not answer may hold the chunks, so the rows stay until that node has been asked too (RACES 13).
    """
    locked = Chunk.objects.select_for_update().filter(hash__in=list(sizes)).order_by("hash")
    ids = {chunk.hash: chunk.pk for chunk in locked}
    # This statement begins after the rows were locked, so it sees the references that were committed until then.
    free = dict(_unreferenced().filter(pk__in=ids.values()).values_list("hash", "size"))
    if not free:
        return 0
    answers = ask(topology, free)
    gone = [ids[chunk_hash] for chunk_hash, holders in answers.holders.items() if not (answers.silent or holders)]
    Chunk.objects.filter(pk__in=gone)._raw_delete("default")
    return len(gone)
