"""Figures for metrics, as PostgreSQL and Redis keep them. No sketch is surveyed and no volume is listed for metrics.

``health`` has the figures from the volumes, because it looks at the volumes every few seconds anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import redis

from storage import counters
from storage.cluster.topology import Topology
from storage.counters import Counts
from storage.models import Cluster, Content, File, Job, LastCensus, LastSurvey, Node, Tally
from storage.models.statements.prepared import rows
from storage.redis_connection import connect
from storage.tracking import trust
from storage.tracking.surveying import Survey

COUNTED = 1000  # Contents in danger are counted up to this number.


@dataclass(frozen=True)
class Waiting:
    """The queued jobs of one queue that wait for the same thing.

    Attributes:
        number: the number of jobs.
        seconds: the time in seconds since the first of these jobs could have begun. ``seconds`` begins again at 0 with
            each new attempt.
        age: the time in seconds since the first of these jobs was queued.
    """

    number: int
    seconds: float
    age: float


@dataclass(frozen=True)
class Stored:
    """The figures that PostgreSQL has.

    Attributes:
        cluster: the cluster's row.
        nodes: all nodes that are not retired.
        files: number of files.
        objects: number of objects in buckets.
        chunks: number of chunks on record.
        unreadable: number of contents that cannot be read, up to ``COUNTED``.
        short: number of contents with too few copies, up to ``COUNTED``.
        uploads: number of bodies in staging, or on their way into it.
        reserved: bytes that the bodies in staging have reserved.
        waiting: (queue, the thing that jobs wait for, or "" for a worker) → the queued jobs.
        running: kind of job → number of running jobs.
        census: the last census; None if there was none.
        audited_since: the time at which the oldest of the last audits of all online nodes ended. For a node that was
            never audited, the time at which it was added counts.
        survey: the last survey of the sketches; None if there was none.
        surveyed_at: the time of that survey.
        database_size: bytes of the database.
        connections: number of connections that PostgreSQL has.
        most_connections: number of connections that PostgreSQL allows.
    """

    cluster: Cluster
    nodes: Collection[Node]
    files: int
    objects: int
    chunks: int
    unreadable: int
    short: int
    uploads: int
    reserved: int
    waiting: Mapping[tuple[str, str], Waiting]
    running: Mapping[str, int]
    census: LastCensus | None
    audited_since: datetime
    survey: Survey | None
    surveyed_at: datetime | None
    database_size: int
    connections: int
    most_connections: int


@dataclass(frozen=True)
class Tracked:
    """The figures that Redis has.

    Attributes:
        counts: the counts of events and jobs.
        sketches: online node → the reason why its sketch has to be rebuilt, or "" if it need not be rebuilt.
        untrusted: the nodes whose sketches are not trusted.
        memory: bytes that Redis uses; None if Redis does not say.
        most_memory: bytes that Redis may use; None if Redis does not say, or has no limit.
    """

    counts: Counts
    sketches: Mapping[str, str]
    untrusted: Collection[str]
    memory: int | None
    most_memory: int | None


def stored() -> Stored:
    """Ask PostgreSQL, in about fifteen short statements.

    Raises:
        DatabaseError, InterfaceError: PostgreSQL does not answer, or refuses.
        Cluster.DoesNotExist: the database has not been prepared yet.
    """
    cluster = Cluster.load()
    nodes = list(Node.objects.exclude(state=Node.State.RETIRED))
    last = LastSurvey.objects.filter(id=1).first()
    ((uploads, reserved),) = rows("SELECT count(*), coalesce(sum(reserved), 0)::bigint FROM storage_upload", ())
    ((size, most_connections, connections),) = rows(
        """
        SELECT pg_database_size(current_database()), current_setting('max_connections')::int,
               (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
        """,
        (),
    )
    return Stored(
        cluster,
        nodes,
        files=File.count_ready(),
        objects=sum(Tally.totals(Tally.What.OBJECTS).values()),
        chunks=sum(Tally.totals(Tally.What.CHUNKS).values()),
        unreadable=Content.objects.unreadable()[:COUNTED].count(),
        short=Content.objects.short()[:COUNTED].count(),
        uploads=uploads,
        reserved=reserved,
        waiting=_waiting(),
        running=_running(),
        census=LastCensus.load(),
        audited_since=_audited_since(cluster, nodes),
        survey=Survey.from_json(last.document) if last else None,
        surveyed_at=last.taken_at if last else None,
        database_size=size,
        connections=connections,
        most_connections=most_connections,
    )


def tracked() -> Tracked:
    """Ask Redis for the counts and for the headers of the sketches.

    Raises:
        redis.RedisError, StoreUnavailable: Redis does not answer, or refuses.
    """
    counts = counters.read()
    memory, most_memory = _memory()
    topology = Topology.last_known()
    if topology is None:
        return Tracked(counts, {}, (), memory, most_memory)
    reasons = trust.outdated(topology)
    return Tracked(
        counts,
        {member.node_id: str(reasons.get(member.node_id, "")) for member in topology.online},
        [node_id for node_id, reason in reasons.items() if reason in trust.ENDS_TRUST],
        memory,
        most_memory,
    )


def _waiting() -> dict[tuple[str, str], Waiting]:
    found = rows(
        """
        SELECT queue, waiting_for, count(*),
               greatest(0, extract(epoch FROM clock_timestamp() - min(not_before)))::float8,
               greatest(0, extract(epoch FROM clock_timestamp() - min(created_at)))::float8
          FROM storage_job WHERE state = 'queued' GROUP BY queue, waiting_for
        """,
        (),
    )
    return {(queue, lack): Waiting(number, seconds, age) for queue, lack, number, seconds, age in found}


def _running() -> dict[str, int]:
    return dict(rows("SELECT kind, count(*) FROM storage_job WHERE state = 'running' GROUP BY kind", ()))


def _audited_since(cluster: Cluster, nodes: Collection[Node]) -> datetime:
    online = [node for node in nodes if node.online]
    ended = Job.objects.last_audits(node.node_id for node in online)
    return min((ended.get(node.node_id, node.created_at) for node in online), default=cluster.created_at)


def _memory() -> tuple[int | None, int | None]:
    """The bytes that Redis uses, and the most that it may use.

    The user in Redis may not be allowed to ask for its memory.
    """
    try:
        found = connect().info("memory")
    except redis.ResponseError:
        return None, None
    return int(found["used_memory"]), int(found["maxmemory"]) or None
