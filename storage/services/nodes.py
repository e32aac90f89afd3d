"""The nodes as an operator looks at them: their rows, the last audit of each, the last census, and the work on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from storage.exceptions import NoSuchNode
from storage.models import Job, LastCensus, Node

FINDINGS = ("corrupt", "unreadable", "short", "lost", "surplus", "orphans", "leftovers")


@dataclass(frozen=True)
class Audited:
    """The last audit of a node that has ended.

    Attributes:
        ended_at: when it ended.
        state: how it ended.
        found: finding → its number; empty if the audit did not succeed.
    """

    ended_at: datetime
    state: str
    found: Mapping[str, int]


@dataclass(frozen=True)
class NodeView:
    """One node.

    Attributes:
        node: its row.
        since: the time since when it is in its state, as far as that is known.
        audit: its last audit; None if it was never audited, or so long ago that the job has been deleted.
        jobs: the audits, drains and other jobs about it that have not ended.
    """

    node: Node
    since: datetime | None
    audit: Audited | None
    jobs: list[Job]

    @property
    def free_bytes(self) -> int | None:
        """The free room on the node's file system, rounded to sixteenths of its size; None if the size is unknown."""
        return round(self.node.file_system_bytes * self.node.weight) if self.node.file_system_bytes else None


def views() -> tuple[list[NodeView], LastCensus | None]:
    """All nodes that are not retired, and the last census."""
    return _views(_present()), LastCensus.load()


def view(node_id: str) -> tuple[NodeView, LastCensus | None]:
    """One node, and the last census.

    Raises:
        NoSuchNode: no node has this id, or the node is retired.
    """
    named = [node for node in _present() if node.node_id == node_id]
    if not named:
        raise NoSuchNode(f"no node {node_id}")
    (found,) = _views(named)
    return found, LastCensus.load()


def _present() -> list[Node]:
    return list(Node.objects.exclude(state=Node.State.RETIRED))


def _views(nodes: Sequence[Node]) -> list[NodeView]:
    node_ids = [node.node_id for node in nodes]
    about = Job.objects.filter(subject__in=node_ids)
    work = defaultdict(list)
    for job in about.open().order_by("created_at"):
        work[job.subject].append(job)
    ended = about.filter(kind=Job.Kind.AUDIT, state__in=Job.TERMINAL, finished_at__isnull=False)
    audits = {job.subject: job for job in ended.order_by("subject", "-finished_at").distinct("subject")}
    return [
        NodeView(node, _since(node, work[node.node_id]), _audited(audits.get(node.node_id)), work[node.node_id])
        for node in nodes
    ]


def _since(node: Node, jobs: list[Job]) -> datetime | None:
    if node.state == Node.State.DRAINING and node.online:
        return next((job.created_at for job in jobs if job.kind == Job.Kind.DRAIN), None)
    return node.online_changed_at or node.created_at


def _audited(job: Job | None) -> Audited | None:
    if job is None or job.finished_at is None:
        return None
    result = (job.result or {}) if job.state == Job.State.SUCCEEDED else {}
    return Audited(job.finished_at, job.state, {name: result[name] for name in FINDINGS if name in result})
