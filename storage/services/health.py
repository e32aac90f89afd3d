"""Tell whether the cluster can serve now, and describe each trouble in words, together with what to do about it.

A trouble is *failing* if uploads or downloads are refused because of it. A trouble is *degraded* if uploads and
downloads go on, but with less redundancy, lower speed or less exact figures. The words of a trouble begin with a clause
that stays the same until the trouble is over. The text after the first colon of the words may change, and says what to
do.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import datetime

import redis
import structlog
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Count, Min

from storage.cluster import admission, clocks
from storage.cluster.placement import acknowledgeable
from storage.cluster.topology import Member, Topology
from storage.conf import configuration
from storage.exceptions import StagingUnavailable, VolumeError, VolumeUnasked
from storage.models import Cluster, Content, Job, Lasting, Node, clock, refusals
from storage.models.clock import Clock
from storage.recent import Recent
from storage.redis_connection import connect
from storage.tracking import trust
from storage.tracking.store import StoreUnavailable
from storage.tracking.surveying import GATHERED_FOR
from storage.volumes import Space

log = structlog.get_logger(__name__)

GOOD_SECONDS = 0.5  # The result of an examination is used for this long.
LOOKS = 32  # Volumes are looked at by this many threads.
LOOK_SECONDS = 1.0  # A volume has this long to answer.
WAITING_SECONDS = 10.0  # An upload that no worker has taken for this long is a trouble.
COUNTED = 1000  # Files in danger are counted up to this number.


@dataclass
class Health:
    """The result of an examination.

    Attributes:
        nodes: the number of active nodes whose volumes answer.
        failing: name of a trouble because of which requests are refused → its description.
        degraded: name of another trouble → its description.
        spaces: node → the room on its disk, for the nodes that answer.
        staging: the room in staging; None if it cannot be used.
        since: name of a trouble → the time since when it has lasted, for the troubles that a worker has seen too.
    """

    nodes: int = 0
    failing: dict[str, str] = field(default_factory=dict)
    degraded: dict[str, str] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    staging: Space | None = None
    since: dict[str, datetime] = field(default_factory=dict)


def examine() -> Health:
    """Ask PostgreSQL, Redis and every volume, each with a time limit. Concurrent callers share one examination."""
    return _recent.see(_examine, seconds=GOOD_SECONDS)


def _examine() -> Health:
    health = Health()
    topology = _ask_postgresql(health)
    if lack := admission.staging_lack():
        health.failing["staging"] = f"no upload can be received: {lack}; make room, or mend the folder"
    with contextlib.suppress(StagingUnavailable):
        health.staging = admission.staging_space()
    if topology is not None:
        _look_at_nodes(topology, health)
    if topology is not None and "postgresql" not in health.failing:
        try:
            _look_at_files(topology, health)
            _look_at_generations(topology, health)
            _look_at_gatherings(health)
            _look_at_uploads(health)
            _compare_clocks(health)
        except (DatabaseError, InterfaceError) as error:
            health.failing["postgresql"] = refusals.words(error)
    _ask_redis(topology if "postgresql" not in health.failing else None, health)
    if (health.failing or health.degraded) and topology is not None and "postgresql" not in health.failing:
        with contextlib.suppress(DatabaseError, InterfaceError):
            health.since = Lasting.times()
    return health


def watch() -> None:
    """Record since when each trouble has lasted. A worker calls this every few seconds."""
    found = _examine()
    Lasting.keep({*found.failing, *found.degraded})


_recent: Recent[Health] = Recent(GOOD_SECONDS)


def _ask_postgresql(health: Health) -> Topology | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('transaction_read_only') = 'on' OR pg_is_in_recovery()")
            if cursor.fetchone()[0]:
                health.failing["postgresql"] = refusals.READ_ONLY
        topology = Topology.recent(seconds=0.5)
    except (DatabaseError, InterfaceError) as error:
        health.failing["postgresql"] = refusals.words(error)
        return Topology.last_known()
    except Cluster.DoesNotExist:
        health.failing["postgresql"] = "the database is empty: run `manage.py prepare`"
        return None
    if reason := refusals.lately():
        health.failing.setdefault("postgresql", reason)
    return topology


# -- nodes -------------------------------------------------------------------

OFFLINE = "is offline: see that its disk is there and answers"
READ_ONLY = "is read-only: see why its file system is mounted so"

# A volume that hangs occupies one of these LOOKS threads for the time limit of its lane, and no other thread.
_eyes = ThreadPoolExecutor(LOOKS, thread_name_prefix="health")


def _look_at_nodes(topology: Topology, health: Health) -> None:
    needed = acknowledgeable(configuration().replication_factor)
    looks = [(member, _eyes.submit(_look_at, member)) for member in topology.members]
    deadline = time.monotonic() + LOOK_SECONDS
    taking = 0
    for member, look in looks:
        try:
            trouble, space = look.result(max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            trouble, space = OFFLINE, None
        if space is not None:
            health.spaces[member.node_id] = space
        is_active = member.state == Node.State.ACTIVE
        health.nodes += is_active and trouble != OFFLINE
        taking += is_active and not trouble
        if trouble:
            health.degraded[member.node_id] = f"{member.node_id} {trouble}"
    if taking < needed:
        troubles = "; ".join(health.degraded[m.node_id] for m in topology.members if m.node_id in health.degraded)
        health.failing["nodes"] = (
            f"too few nodes take copies: {taking} of {len(topology.members)}, and an upload needs {needed}; {troubles}"
        )


def _look_at(member: Member) -> tuple[str, Space | None]:
    """Ask a node's volume for its room.

    Returns:
        The reason why the node takes no copies, in words, or an empty string if it takes copies; and the room on its
        disk, or None if the node did not say.
    """
    try:
        space = member.look()
    except VolumeUnasked:
        return "", None  # This process lacks threads or descriptors, which says nothing about the node.
    except VolumeError:
        return OFFLINE, None
    return _lack_of(space), space


def _lack_of(space: Space) -> str:
    if not space.writable:
        return READ_ONLY
    if space.lack == "bytes":
        return f"is full: {space.free >> 20} MiB are free on its disk; delete files or make room"
    if space.lack == "files":
        return f"is full: {space.free_files} inodes are left on its disk; delete files or make room"
    return ""


# -- what is stored ----------------------------------------------------------


def _look_at_files(topology: Topology, health: Health) -> None:
    if lost := Content.objects.unreadable()[:COUNTED].count():
        health.degraded["unreadable"] = (
            f"files cannot be read: {_number(lost)}; bring the nodes back that hold their chunks"
        )
    if number := Content.objects.short()[:COUNTED].count():
        health.degraded["copies"] = (
            f"files have fewer copies than they should: {_number(number)}; they are made as soon as nodes can take them"
        )


def _look_at_gatherings(health: Health) -> None:
    if Cluster.objects.filter(gathered_since__lt=Clock() - GATHERED_FOR).exists():
        health.degraded["gathered"] = (
            "copies are gathered on few nodes, and more files than necessary would be lost with those: "
            "/status has them as blast_radius; `manage.py rebalance --dry-run` says what would mend it"
        )


def _look_at_generations(topology: Topology, health: Health) -> None:
    foreign = Node.objects.filter(node_id__in=[member.node_id for member in topology.members], foreign_writes=True)
    if node_ids := list(foreign.values_list("node_id", flat=True)):
        health.degraded["database"] = (
            "the database is older than the volumes, or another: nothing is removed until the newer one is back, or "
            f"until `manage.py adopt` decides what becomes of what {', '.join(node_ids)} may hold beyond it"
        )


def _number(files: int) -> str:
    return str(files) if files < COUNTED else f"{files} or more"


def _look_at_uploads(health: Health) -> None:
    """Look for uploads that no worker takes, because no worker runs or a service that workers need is down."""
    waiting = (
        Job.objects.queued(Job.Queue.INGEST)
        .filter(waiting_for="")
        .aggregate(number=Count("id"), since=Min("not_before"))
    )
    if not waiting["number"]:
        return
    seconds = (clock.now() - waiting["since"]).total_seconds()
    if seconds > WAITING_SECONDS:
        health.degraded["uploads"] = (
            f"uploads wait for a worker: {waiting['number']}, for up to {seconds:.0f} s; see that the workers run"
        )


def _compare_clocks(health: Health) -> None:
    for program, seconds in clocks.differences().items():
        health.degraded[f"clock of {program}"] = (
            f"the clock of {program} is not PostgreSQL's: it is {seconds:+.0f} s ahead; set both by NTP"
        )


def _ask_redis(topology: Topology | None, health: Health) -> None:
    """Look whether Redis answers. Without Redis no sketch is read, but files are stored and served."""
    try:
        connect().set("occ:health", 1, ex=60)
        stale = [member.node_id for member in trust.untrusted(topology)] if topology is not None else []
    except (redis.RedisError, StoreUnavailable) as error:
        health.degraded["redis"] = (
            "Redis does not answer, or refuses: uploads and downloads go on, sketches are not trusted until it is back "
            f"({str(error)[:100]})"
        )
        return
    if stale:
        health.degraded["sketches"] = f"sketches are not trusted: those of {', '.join(stale)} are being rebuilt"
