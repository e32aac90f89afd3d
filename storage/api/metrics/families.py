"""Metrics made of the figures of the cluster. Without figures they have a name, a type and no samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from storage.conf import VERSION, configuration
from storage.counters import Event, Outcome
from storage.models import Job, LastCensus
from storage.queues import Queue
from storage.services.figures import Stored, Tracked, Waiting
from storage.services.health import Health
from storage.tracking.store import Estimate
from storage.tracking.surveying import Survey, largest_z

Labels = tuple[str, ...]

# A trouble of /health has the name of a node, of a program, or one of a few names.
NODE, CLOCK = "node", "clock"
TROUBLES = frozenset(
    "postgresql redis staging nodes unreadable copies gathered database uploads sketches".split()  # noqa: SIM905
)
BYTES = re.compile("^bytes_(.*)$")


def settings() -> Metric:
    return _gauge("occ_info", "The version of this process.", {(VERSION,): 1.0}, "version")


def parts(answered: Mapping[str, bool]) -> Iterator[Metric]:
    """Whether each part of the system has given its figures."""
    for name, has_answered in answered.items():
        yield _gauge(f"occ_{name}_up", f"1 if {name} has given its figures for this answer.", {(): float(has_answered)})


def times(seconds: Mapping[str, float]) -> Metric:
    """The times that the parts of the system took to give their figures."""
    taken = {(name,): value for name, value in seconds.items()}
    return _gauge("occ_figures_seconds", "Time that a part took to give its figures for this answer.", taken, "part")


def stored(found: Stored | None) -> Iterator[Metric]:
    """The figures that PostgreSQL has."""
    yield from _nodes(found)
    yield from _jobs(found)
    conf = configuration()
    single = {
        "occ_files": ("Files.", found and found.files),
        "occ_chunks": ("Chunks on record, also those that wait to be reclaimed.", found and found.chunks),
        "occ_files_unreadable": ("Contents that cannot be read, up to 1000.", found and found.unreadable),
        "occ_files_short": ("Contents with too few copies, up to 1000.", found and found.short),
        "occ_staging_uploads": ("Uploads that are received or wait to be stored.", found and found.uploads),
        "occ_staging_reserved_bytes": ("Bytes that these uploads have reserved.", found and found.reserved),
        "occ_audited_since_timestamp_seconds": (
            "The time since when every online node has been audited.",
            found and found.audited_since.timestamp(),
        ),
        "occ_audit_interval_seconds": ("AUDIT_INTERVAL; 0 is never.", conf.audit_interval),
        "occ_census_interval_seconds": ("CENSUS_INTERVAL; 0 is never.", conf.census_interval),
        "occ_sketch_registers": ("N', the registers of each sketch.", found and found.cluster.n_prime),
        "occ_postgresql_size_bytes": ("The size of the database.", found and found.database_size),
        "occ_postgresql_connections": ("Connections that PostgreSQL has.", found and found.connections),
        "occ_postgresql_connections_limit": ("PostgreSQL's max_connections.", found and found.most_connections),
    }
    for name, (documentation, value) in single.items():
        yield _single(name, documentation, value)
    yield from _census(found and found.census, found and found.cluster.created_at)
    yield from _survey(found and found.survey, found and found.surveyed_at)


def _nodes(found: Stored | None) -> Iterator[Metric]:
    nodes = found.nodes if found else ()
    yield _gauge(
        "occ_node_state",
        "1 for the present state of a node, as in docs/operations.md.",
        {(node.node_id, node.condition): 1.0 for node in nodes},
        "node",
        "state",
    )
    yield _gauge(
        "occ_node_up",
        "1 if a node answered the last probe.",
        {(node.node_id,): float(node.online) for node in nodes if node.state != node.State.CREATING},
        "node",
    )
    yield _gauge("occ_node_copies", "Copies on a node.", {(n.node_id,): float(n.chunks) for n in nodes}, "node")
    yield _gauge("occ_node_bytes", "Bytes of a node's copies.", {(n.node_id,): float(n.bytes) for n in nodes}, "node")


def _jobs(found: Stored | None) -> Iterator[Metric]:
    waiting = dict(found.waiting) if found else {}
    if found:
        for queue in Queue:
            waiting.setdefault((queue.value, ""), Waiting(0, 0.0, 0.0))
    named = {(queue, lack or "worker"): one for (queue, lack), one in waiting.items()}
    labels = ("queue", "waiting_for")
    yield _gauge("occ_jobs_waiting", "Queued jobs.", {key: float(one.number) for key, one in named.items()}, *labels)
    yield _gauge(
        "occ_jobs_waiting_seconds",
        "Time since the first of these jobs could have begun; it begins again with each attempt.",
        {key: one.seconds for key, one in named.items()},
        *labels,
    )
    yield _gauge(
        "occ_jobs_oldest_seconds",
        "Time since the first of these jobs was queued.",
        {key: one.age for key, one in named.items()},
        *labels,
    )
    running = found.running.items() if found else ()
    yield _gauge("occ_jobs_running", "Running jobs.", {(kind,): float(number) for kind, number in running}, "kind")


def _census(census: LastCensus | None, created_at: datetime | None) -> Iterator[Metric]:
    at = census.taken_at if census else created_at
    yield _single(
        "occ_census_timestamp_seconds",
        "The end of the last census; until the first one, the time at which the cluster was made.",
        at and at.timestamp(),
    )
    names = ("chunks", "short", "lost", "surplus", "orphans")
    found = {(name,): float(getattr(census, name)) for name in names} if census else {}
    yield _gauge("occ_census_chunks", "Chunks that the last census found, by what was found.", found, "found")
    yield _single("occ_census_copies", "Copies that the last census found.", census and census.copies)
    yield _single("occ_census_bytes", "Bytes of these copies.", census and census.bytes)
    yield _single(
        "occ_census_silent_nodes", "Nodes that the last census could not list.", len(census.silent) if census else None
    )


def _survey(survey: Survey | None, at: datetime | None) -> Iterator[Metric]:
    yield _single("occ_survey_timestamp_seconds", "The last survey of all sketches.", at and at.timestamp())
    yield _single("occ_sketch_load", "Distinct chunks per register in the last survey.", survey and survey.load)
    yield _single(
        "occ_sketch_false_positive_ratio",
        "Predicted probability that a sketch wrongly says that its node has a chunk.",
        survey and survey.false_positive_rate,
    )
    spectrum = {(str(copies),): chunks for copies, chunks in enumerate(survey.spectrum, 1)} if survey else {}
    yield from _estimates(
        "occ_chunks_by_copies", "Chunks with a number of copies, the last class or more", spectrum, "copies"
    )
    single: dict[str, tuple[str, Estimate | None]] = {
        "occ_chunks_distinct": ("Distinct chunks on online nodes", survey and survey.union),
        "occ_chunks_below_target": ("Chunks with fewer copies than wanted", survey and survey.below_target),
        "occ_copies_per_chunk": ("Average copies of a chunk", survey and survey.average_replication),
    }
    for name, (documentation, estimate) in single.items():
        yield from _estimates(name, documentation, {(): estimate} if estimate else {})
    overlap = survey.overlap if survey else None
    yield _single("occ_overlap_largest_z", "The largest standard score of two nodes' overlap.", largest_z(overlap))
    yield _single(
        "occ_overlap_z_bound",
        "In one healthy survey of a hundred the largest score is above this.",
        overlap and overlap.bound,
    )
    gathered = sum(one.is_out_of_bounds for one in survey.gatherings) if survey else None
    yield _single("occ_gatherings", "Sets of nodes that hold too many chunks alone.", gathered)


def tracked(found: Tracked | None) -> Iterator[Metric]:
    """The figures that Redis has."""
    for event in Event:
        name = BYTES.sub(r"\1_bytes", event)
        counted = {(): float(found.counts.events[event])} if found else {}
        yield _counter(f"occ_{name}_total", f"See {event} in docs/api.md.", counted)
    jobs = {}
    if found:
        # A counter begins with 0: Prometheus would not see the step from nothing to 1.
        jobs = {(kind.value, outcome.value): 0.0 for kind in Job.Kind for outcome in Outcome}
        jobs |= {key: float(number) for key, number in found.counts.jobs.items()}
    yield _counter("occ_jobs_total", "Attempts at jobs that are over, by how they ended.", jobs, "kind", "outcome")
    sizes = {(kind,): float(size) for kind, size in found.counts.sizes.items()} if found else {}
    yield _counter("occ_job_bytes_total", "Bytes of files of the jobs that succeeded.", sizes, "kind")
    trusted = {(node,): float(node not in found.untrusted) for node in found.sketches} if found else {}
    yield _gauge("occ_sketch_trusted", "1 if the sketch of an online node is trusted.", trusted, "node")
    outdated = {(node,): float(bool(reason)) for node, reason in found.sketches.items()} if found else {}
    yield _gauge("occ_sketch_outdated", "1 if the sketch of an online node has to be rebuilt.", outdated, "node")
    yield _single("occ_redis_memory_bytes", "Memory that Redis uses.", found and found.memory)
    yield _single(
        "occ_redis_memory_limit_bytes", "Memory that Redis may use, if that is limited.", found and found.most_memory
    )


def examined(found: Health | None) -> Iterator[Metric]:
    """The figures of an examination. Without them the cluster is not ready."""
    yield _gauge(
        "occ_ready", "1 if uploads and downloads can be served.", {(): float(bool(found and not found.failing))}
    )
    counted: dict[Labels, float] = {}
    if found:
        counted = {("degraded", name): 0.0 for name in (*TROUBLES, NODE, CLOCK)}
        for severity, troubles in (("failing", found.failing), ("degraded", found.degraded)):
            for name in troubles:
                key = (severity, _kind_of(name, found))
                counted[key] = counted.get(key, 0.0) + 1.0
    yield _gauge("occ_troubles", "Troubles in /health.", counted, "severity", "trouble")
    spaces = found.spaces.items() if found else ()
    yield _gauge(
        "occ_node_disk_free_bytes",
        "Free bytes of the file system of a node; nodes may share one.",
        {(node_id,): float(space.free) for node_id, space in spaces},
        "node",
    )
    yield _gauge(
        "occ_node_disk_bytes",
        "Size of the file system of a node.",
        {(node_id,): float(space.total) for node_id, space in spaces},
        "node",
    )
    staging = found.staging if found else None
    yield _single("occ_staging_disk_free_bytes", "Free bytes of the file system of staging.", staging and staging.free)
    yield _single("occ_staging_disk_bytes", "Size of the file system of staging.", staging and staging.total)


def _kind_of(trouble: str, found: Health) -> str:
    if trouble in TROUBLES:
        return trouble
    return CLOCK if trouble.startswith("clock ") else NODE


def _estimates(name: str, documentation: str, estimates: Mapping[Labels, Estimate], *labels: str) -> Iterator[Metric]:
    """Three gauges: the estimates and the ends of their 95 % intervals. An upper end that is not known is left out."""
    upper = {key: one.upper_bound for key, one in estimates.items() if one.upper_bound is not None}
    yield _gauge(name, f"{documentation}: estimated.", {key: one.estimate for key, one in estimates.items()}, *labels)
    lower = {key: one.lower_bound for key, one in estimates.items()}
    yield _gauge(f"{name}_lower_bound", f"{documentation}: at least.", lower, *labels)
    yield _gauge(f"{name}_upper_bound", f"{documentation}: at most.", upper, *labels)


def _single(name: str, documentation: str, value: float | None) -> Metric:
    return _gauge(name, documentation, {} if value is None else {(): float(value)})


def _gauge(name: str, documentation: str, values: Mapping[Labels, float], *labels: str) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=labels)
    _add(family, values.items())
    return family


def _counter(name: str, documentation: str, values: Mapping[Labels, float], *labels: str) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=labels)
    _add(family, values.items())
    return family


def _add(family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[Labels, float]]) -> None:
    for labels, value in sorted(values):
        family.add_metric(labels, value)
