"""Statistics of the whole cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import redis
import structlog
from django.utils import timezone

from storage import counters
from storage.cluster.topology import Topology
from storage.models import Cluster, File, Generation, Job, LastCensus, LastSurvey, Node, Tally
from storage.tracking import surveying, trust
from storage.tracking.store import StoreUnavailable
from storage.tracking.surveying import Survey

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class NodeStatistics:
    """The tallies and the state of one node.

    Attributes:
        node_id: the id of the node.
        condition: the state of the node in a word.
        chunks: the number of copies on the node.
        bytes: the size of the copies on the node.
        union_size: the number of chunks on the node, estimated from its sketch; None while there is no estimate.
        foreign_writes: True if the volume was written to under a database that this database does not know.
        online: True if the node answers.
        since: the time since when the node answers or does not answer; None if it has always answered.
        zone: the zone of the node; empty if it has none.
        disk_bytes: the size of the node's file system; None if this size is not known.
        free_share: the share of this file system that is free, rounded to sixteenths; 0 if the node is full.
    """

    node_id: str
    condition: str
    chunks: int
    bytes: int
    union_size: int | None
    foreign_writes: bool
    online: bool
    since: datetime | None
    zone: str
    disk_bytes: int | None
    free_share: float

    @property
    def free_bytes(self) -> int | None:
        return None if self.disk_bytes is None else round(self.disk_bytes * self.free_share)


@dataclass(frozen=True)
class Statistics:
    """The whole cluster.

    Attributes:
        cluster: the cluster's row.
        generation: the number of the database's last generation (RACES 12).
        nodes: all nodes that are not retired.
        files: number of files.
        objects: number of objects in buckets.
        chunks: number of distinct chunks, including the chunks that wait to be reclaimed.
        survey: the estimates from the sketches at ``surveyed_at``; None while a sketch is missing or Redis does not
            answer.
        surveyed_at: the time of the survey.
        sketch_state: the present state of the sketches: ``trusted``, ``rebuilding`` or ``unavailable``.
        census: the result of the last census; None if there was none yet.
        audited_since: since this time every online node has been audited; None if an online node never was.
        counters: event → how often it happened, such as repairs; None if Redis does not answer.
    """

    cluster: Cluster
    generation: int
    nodes: list[NodeStatistics]
    files: int
    objects: int
    chunks: int
    survey: Survey | None
    surveyed_at: datetime
    sketch_state: str
    census: LastCensus | None
    audited_since: datetime | None
    counters: dict[str, int] | None

    @property
    def replicas(self) -> int:
        return sum(node.chunks for node in self.nodes)

    @property
    def average_replication(self) -> float:
        """The copies on online nodes, by the tallies, divided by the chunks on record.

        The survey of the sketches also gives an estimate of this average.
        """
        counted = sum(node.chunks for node in self.nodes if node.online)
        return counted / self.chunks if self.chunks else 0.0

    @property
    def bytes(self) -> int:
        return sum(node.bytes for node in self.nodes)


def gather() -> Statistics:
    """Read PostgreSQL and the sketches. If the sketches are large, the last survey is read instead of the sketches."""
    topology = Topology.load()
    survey, surveyed_at = None, timezone.now()
    sketch_state = "unavailable"
    try:
        last = LastSurvey.objects.filter(id=1).first() if surveying.is_large(topology) else None
        if last is not None:
            survey, surveyed_at = Survey.from_json(last.document), last.taken_at
            sketch_state = "rebuilding" if trust.untrusted(topology) else "trusted"
        else:
            survey = surveying.survey(topology)
            sketch_state = "trusted" if survey is not None and survey.trusted else "rebuilding"
    except StoreUnavailable as error:
        survey = None
        log.warning("sketch.unavailable", error=str(error))
    unions = dict(zip(survey.node_ids, survey.unions, strict=True)) if survey else {}
    nodes = [
        NodeStatistics(
            node.node_id,
            node.condition,
            node.chunks,
            node.bytes,
            round(union.estimate) if (union := unions.get(node.node_id)) else None,
            node.foreign_writes,
            node.online,
            node.online_changed_at,
            node.zone,
            node.file_system_bytes or None,
            node.weight,
        )
        for node in Node.objects.exclude(state=Node.State.RETIRED)
    ]
    return Statistics(
        topology.cluster,
        Generation.latest(),
        nodes,
        files=File.count_ready(),
        objects=sum(Tally.totals(Tally.What.OBJECTS).values()),
        chunks=sum(Tally.totals(Tally.What.CHUNKS).values()),
        survey=survey,
        surveyed_at=surveyed_at,
        sketch_state=sketch_state,
        census=LastCensus.load(),
        audited_since=_audited_since(topology),
        counters=_counted(),
    )


def _audited_since(topology: Topology) -> datetime | None:
    """The oldest of the times at which online nodes were last audited; None if an online node was never audited."""
    online = [member.node_id for member in topology.online]
    ended = Job.objects.last_audits(online)
    return min(ended.values()) if online and len(ended) == len(online) else None


def _counted() -> dict[str, int] | None:
    try:
        return counters.totals()
    except redis.RedisError as error:
        log.warning("counters.unavailable", error=str(error))
        return None
