"""The metrics of the cluster: their names, their meanings, and the figures that they are read from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from storage.api.metrics.families import Figure, Value, estimated
from storage.conf import configuration
from storage.counters import Event, Outcome
from storage.models import Job
from storage.queues import Queue
from storage.services.figures import Stored, Tracked, Waiting
from storage.services.health import Health
from storage.tracking.surveying import largest_z

# A trouble of /health is named in FAILING or TROUBLES, or has the name of a node or of a program whose clock is wrong.
FAILING = ("postgresql", "staging", "nodes")
TROUBLES = (*FAILING, "redis", "unreadable", "copies", "gathered", "database", "uploads", "sketches")
NODE, CLOCK = "node", "clock"
CENSUS = ("chunks", "short", "lost", "surplus", "orphans")
BYTES = re.compile("^bytes_(.*)$")


# -- PostgreSQL -------------------------------------------------------------


def _waiting(stored: Stored) -> dict[tuple[str, str], Waiting]:
    """(queue, the thing that jobs wait for) → the queued jobs.

    Both queues are in the result, even if they are empty.
    """
    found = {(queue.value, "worker"): Waiting(0, 0.0, 0.0) for queue in Queue}
    return found | {(queue, lack or "worker"): jobs for (queue, lack), jobs in stored.waiting.items()}


def _census_at(stored: Stored) -> Value:
    return (stored.census.taken_at if stored.census else stored.cluster.created_at).timestamp()


def _census_chunks(stored: Stored) -> Value:
    return {(name,): getattr(stored.census, name) for name in CENSUS} if stored.census else None


NODES: tuple[Figure[Stored], ...] = (
    Figure(
        "occ_node_state",
        "1 for the present state of a node, as in docs/operations.md.",
        lambda stored: {(node.node_id, node.condition): 1 for node in stored.nodes},
        ("node", "state"),
    ),
    Figure(
        "occ_node_up",
        "1 if a node answered the last probe.",
        lambda stored: {(node.node_id,): node.online for node in stored.nodes if node.state != node.State.CREATING},
        ("node",),
    ),
    Figure(
        "occ_node_copies",
        "Copies on a node.",
        lambda stored: {(node.node_id,): node.chunks for node in stored.nodes},
        ("node",),
    ),
    Figure(
        "occ_node_bytes",
        "Bytes of a node's copies.",
        lambda stored: {(node.node_id,): node.bytes for node in stored.nodes},
        ("node",),
    ),
)

JOBS: tuple[Figure[Stored], ...] = (
    Figure(
        "occ_jobs_waiting",
        "Queued jobs.",
        lambda stored: {key: jobs.number for key, jobs in _waiting(stored).items()},
        ("queue", "waiting_for"),
    ),
    Figure(
        "occ_jobs_waiting_seconds",
        "Time since the first of these jobs could have begun; it begins again with each attempt.",
        lambda stored: {key: jobs.seconds for key, jobs in _waiting(stored).items()},
        ("queue", "waiting_for"),
    ),
    Figure(
        "occ_jobs_oldest_seconds",
        "Time since the first of these jobs was queued.",
        lambda stored: {key: jobs.age for key, jobs in _waiting(stored).items()},
        ("queue", "waiting_for"),
    ),
    Figure(
        "occ_jobs_running",
        "Running jobs.",
        lambda stored: {(kind,): number for kind, number in stored.running.items()},
        ("kind",),
    ),
    Figure("occ_staging_uploads", "Uploads that are received or wait to be stored.", lambda stored: stored.uploads),
    Figure("occ_staging_reserved_bytes", "Bytes that these uploads have reserved.", lambda stored: stored.reserved),
)

FILES: tuple[Figure[Stored], ...] = (
    Figure("occ_files", "Files.", lambda stored: stored.files),
    Figure("occ_objects", "Objects in buckets.", lambda stored: stored.objects),
    Figure("occ_chunks", "Chunks on record, also those that wait to be reclaimed.", lambda stored: stored.chunks),
    Figure("occ_files_unreadable", "Contents that cannot be read, up to 1000.", lambda stored: stored.unreadable),
    Figure("occ_files_short", "Contents with too few copies, up to 1000.", lambda stored: stored.short),
    Figure(
        "occ_audited_since_timestamp_seconds",
        "The time since when every online node has been audited.",
        lambda stored: stored.audited_since.timestamp(),
    ),
    Figure("occ_audit_interval_seconds", "AUDIT_INTERVAL; 0 is never.", lambda _: configuration().audit_interval),
    Figure(
        "occ_census_timestamp_seconds",
        "The end of the last census; until the first one, the time at which the cluster was made.",
        _census_at,
    ),
    Figure("occ_census_interval_seconds", "CENSUS_INTERVAL; 0 is never.", lambda _: configuration().census_interval),
    Figure("occ_census_chunks", "Chunks that the last census found, by what was found.", _census_chunks, ("found",)),
    Figure(
        "occ_census_copies", "Copies that it found.", lambda stored: stored.census.copies if stored.census else None
    ),
    Figure("occ_census_bytes", "Bytes of these copies.", lambda stored: stored.census.bytes if stored.census else None),
    Figure(
        "occ_census_on_disk_bytes",
        "Bytes that these copies take, which are fewer if they are compressed.",
        lambda stored: stored.census.all_stored if stored.census else None,
    ),
    Figure(
        "occ_census_silent_nodes",
        "Nodes that it could not list.",
        lambda stored: len(stored.census.silent) if stored.census else None,
    ),
)

DATABASE: tuple[Figure[Stored], ...] = (
    Figure("occ_postgresql_size_bytes", "The size of the database.", lambda stored: stored.database_size),
    Figure("occ_postgresql_connections", "Connections that PostgreSQL has.", lambda stored: stored.connections),
    Figure("occ_postgresql_connections_limit", "Its max_connections.", lambda stored: stored.most_connections),
)


# -- the last survey, which PostgreSQL keeps --------------------------------


def _largest_z(stored: Stored) -> Value:
    return largest_z(stored.survey.overlap) if stored.survey else None


def _z_bound(stored: Stored) -> Value:
    return stored.survey.overlap.bound if stored.survey and stored.survey.overlap else None


def _gatherings(stored: Stored) -> Value:
    return sum(one.is_out_of_bounds for one in stored.survey.gatherings) if stored.survey else None


SURVEY: tuple[Figure[Stored], ...] = (
    Figure("occ_sketch_registers", "N', the registers of each sketch.", lambda stored: stored.cluster.n_prime),
    Figure(
        "occ_survey_timestamp_seconds",
        "The time of the last survey of all sketches.",
        lambda stored: stored.surveyed_at.timestamp() if stored.surveyed_at else None,
    ),
    Figure(
        "occ_sketch_load",
        "Distinct chunks per register in the last survey.",
        lambda stored: stored.survey.load if stored.survey else None,
    ),
    Figure(
        "occ_sketch_false_positive_ratio",
        "Predicted probability that a sketch wrongly says that its node has a chunk.",
        lambda stored: stored.survey.false_positive_rate if stored.survey else None,
    ),
    *estimated(
        "occ_chunks_by_copies",
        "Chunks with a number of copies; the last class also has those with more",
        lambda stored: {(f"{n}",): one for n, one in enumerate(stored.survey.spectrum, 1)} if stored.survey else {},
        "copies",
    ),
    *estimated(
        "occ_chunks_distinct",
        "Distinct chunks on online nodes",
        lambda stored: {(): stored.survey.union} if stored.survey else {},
    ),
    *estimated(
        "occ_chunks_below_target",
        "Chunks with fewer copies than wanted",
        lambda stored: {(): stored.survey.below_target} if stored.survey else {},
    ),
    *estimated(
        "occ_copies_per_chunk",
        "Average number of copies of a chunk",
        lambda stored: {(): stored.survey.average_replication} if stored.survey else {},
    ),
    Figure("occ_overlap_largest_z", "The largest standard score of two nodes' overlap.", _largest_z),
    Figure("occ_overlap_z_bound", "In one healthy survey of a hundred the largest score is above this.", _z_bound),
    Figure("occ_gatherings", "Sets of nodes that hold too many chunks alone.", _gatherings),
)

STORED = (*NODES, *JOBS, *FILES, *DATABASE, *SURVEY)


# -- Redis ------------------------------------------------------------------


def _jobs(tracked: Tracked) -> Value:
    # A counter is shown as 0 before its first event: Prometheus would not see the step from nothing to 1.
    none = {(kind.value, outcome.value): 0 for kind in Job.Kind for outcome in Outcome}
    return none | dict(tracked.counts.jobs)


def _event(event: Event) -> Figure[Tracked]:
    name = BYTES.sub(r"\1_bytes", event)
    return Figure(f"occ_{name}_total", f"See {event} in docs/api.md.", lambda tracked: tracked.counts.events[event])


TRACKED: tuple[Figure[Tracked], ...] = (
    *map(_event, Event),
    Figure("occ_jobs_total", "Attempts at jobs that are over, by how they ended.", _jobs, ("kind", "outcome")),
    Figure(
        "occ_job_bytes_total",
        "Bytes of the files of jobs that succeeded.",
        lambda tracked: {(kind,): size for kind, size in tracked.counts.sizes.items()},
        ("kind",),
    ),
    Figure(
        "occ_sketch_trusted",
        "1 if the sketch of an online node is trusted.",
        lambda tracked: {(node,): node not in tracked.untrusted for node in tracked.sketches},
        ("node",),
    ),
    Figure(
        "occ_sketch_outdated",
        "1 if the sketch of an online node has to be rebuilt.",
        lambda tracked: {(node,): bool(reason) for node, reason in tracked.sketches.items()},
        ("node",),
    ),
    Figure("occ_redis_memory_bytes", "Memory that Redis uses.", lambda tracked: tracked.memory),
    Figure("occ_redis_memory_limit_bytes", "Memory that it may use, if limited.", lambda tracked: tracked.most_memory),
)


# -- the health check -------------------------------------------------------


def _troubles(health: Health) -> Value:
    counted: Counter[Any] = Counter({("degraded", name): 0 for name in (*TROUBLES, NODE, CLOCK)})
    for severity, troubles in (("failing", health.failing), ("degraded", health.degraded)):
        counted.update((severity, _kind_of(trouble)) for trouble in troubles)
    return counted


def _kind_of(trouble: str) -> str:
    if trouble in TROUBLES:
        return trouble
    return CLOCK if trouble.startswith("clock ") else NODE


EXAMINED: tuple[Figure[Health], ...] = (
    Figure("occ_troubles", "Troubles in /health.", _troubles, ("severity", "trouble")),
    Figure(
        "occ_node_disk_free_bytes",
        "Free bytes of the file system of a node; nodes may share one.",
        lambda health: {(node,): space.free for node, space in health.spaces.items()},
        ("node",),
    ),
    Figure(
        "occ_node_disk_bytes",
        "Size of the file system of a node.",
        lambda health: {(node,): space.total for node, space in health.spaces.items()},
        ("node",),
    ),
    Figure(
        "occ_staging_disk_free_bytes",
        "Free bytes of the file system of staging.",
        lambda health: health.staging.free if health.staging else None,
    ),
    Figure(
        "occ_staging_disk_bytes",
        "Size of the file system of staging.",
        lambda health: health.staging.total if health.staging else None,
    ),
)


# -- what this process has found out about the parts ------------------------

INFO: Figure[str] = Figure("occ_info", "The version of this process.", lambda version: {(version,): 1}, ("version",))
READY: Figure[bool] = Figure("occ_ready", "1 if uploads and downloads can be served.", lambda is_ready: is_ready)
SECONDS: Figure[Mapping[str, float]] = Figure(
    "occ_figures_seconds",
    "Time that a part took to give its figures for this answer.",
    lambda seconds: {(part,): taken for part, taken in seconds.items()},
    ("part",),
)


def has_answered(part: str) -> Figure[bool]:
    """The figure that tells whether a part has answered."""
    return Figure(f"occ_{part}_up", f"1 if {part} has given its figures for this answer.", lambda answered: answered)
