"""The JSON documents of answers. ``docs/api.md`` describes the fields of these documents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from storage.accounts.principals import Principal
from storage.accounts.quotas import Account
from storage.conf import VERSION, configuration
from storage.models import Content, File, Job, Key, LastCensus, Resumable, clock
from storage.services.activity import Act
from storage.services.health import Health
from storage.services.locate import Candidate
from storage.services.nodes import NodeView
from storage.services.objects.inventory import Entry, Holdings
from storage.services.statistics import Statistics
from storage.services.verify import Report
from storage.tracking.store import Estimate, sketch_size
from storage.tracking.surveying import Gathering, Survey

MIB = 1 << 20


def file_summary(file: File, epoch: int) -> dict[str, Any]:
    """One entry of ``/files``."""
    content: Content = file.content
    return {
        "file_hash": content.file_hash,
        "file_name": file.name,
        "file_size": content.size,
        "chunks": content.chunk_count,
        "retrievable": content.retrievable,
        "min_replication": content.min_replication,
        "avg_replication": content.avg_replication,
        "max_replication": content.max_replication,
        "replication_factor": file.replication_factor,
        "state": content.state,
        "health_as_of": content.health_at,
        "health_exact": content.health_epoch >= epoch,
        "created_at": file.created_at,
    }


def object_summary(entry: Entry, epoch: int) -> dict[str, Any]:
    """One entry of ``/files?bucket=``."""
    return {
        "file_hash": entry.file_hash,
        "file_name": entry.key,
        "file_size": entry.size,
        "chunks": entry.chunks,
        "retrievable": entry.retrievable,
        "min_replication": entry.min_replication,
        "avg_replication": entry.avg_replication,
        "max_replication": entry.max_replication,
        "replication_factor": entry.replication_factor,
        "state": Content.State.READY,
        "health_as_of": entry.health_at,
        "health_exact": entry.health_epoch >= epoch,
        "created_at": entry.modified_at,
        "etag": entry.etag,
        "content_type": entry.content_type,
        "parts": entry.parts,
    }


def bucket(holdings: Holdings) -> dict[str, Any]:
    """One entry of ``/buckets``. If a quota is null, only the owner's quota limits the bucket."""
    return {
        "name": holdings.name,
        "created_at": holdings.created_at,
        "objects": holdings.objects,
        "bytes": holdings.bytes,
        "quota": {"objects": holdings.max_objects, "bytes": holdings.max_bytes},
        "replication_factor": holdings.replication_factor or configuration().replication_factor,
    }


def troubles(found: Health) -> list[dict[str, Any]]:
    """All troubles in one list. ``since`` is null until a worker has seen the trouble too."""
    return [
        {"name": name, "failing": is_failing, "text": text, "since": found.since.get(name)}
        for is_failing, named in ((True, found.failing), (False, found.degraded))
        for name, text in named.items()
    ]


def account(owned: Account, principal: Principal) -> dict[str, Any]:
    """The answer of ``/account``. A quota of null is no limit."""
    return {
        "owner": owned.owner.username,
        "scopes": sorted(principal.scopes),
        "used": {"files": owned.used.files, "bytes": owned.used.bytes},
        "quota": {"files": owned.max_files, "bytes": owned.max_bytes},
    }


def file_tag(files: Sequence[File]) -> str:
    """The strong entity tag of all files of one owner that have the same content.

    The tag covers the names and the replication factors of the files.
    """
    entries = "".join(f" {file.replication_factor} {file.name}" for file in files)
    text = f"{files[0].content.file_hash}{entries}"
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def verification(report: Report) -> dict[str, Any]:
    """The answer of ``/verify``."""
    health = report.health
    return {
        "file_hash": report.held.content.file_hash,
        "file_name": report.held.name,
        "retrievable": health.retrievable,
        "missing_chunks": report.missing,
        "replication": {"min": health.minimum, "avg": health.average, "max": health.maximum},
        "replication_factor": report.held.replication_factor,
        "chunks": [
            {
                "index": chunk.index,
                "hash": chunk.chunk_hash,
                "size": chunk.size,
                "replicas": len(chunk.nodes),
                "nodes": chunk.nodes,
            }
            for chunk in report.chunks
        ],
    }


def cluster_status(statistics: Statistics) -> dict[str, Any]:
    """The answer of ``/status``."""
    survey = statistics.survey
    conf = configuration()
    return {
        "version": VERSION,
        "network": {
            "total_nodes": len(statistics.nodes),
            "union_size": round(survey.union.estimate) if survey else None,
            "total_chunks": statistics.replicas,
            "total_storage_mb": round(statistics.bytes / MIB, 2),
            "average_replication": round(statistics.average_replication, 3),
            "level_counts": survey.level_counts if survey else None,
            "distinct_chunks": statistics.chunks,
            "sketches": statistics.sketch_state,
        },
        "nodes": [
            {
                "node_id": node.node_id,
                "chunks": node.chunks,
                "size_mb": round(node.bytes / MIB, 2),
                "on_disk_mb": _mib(statistics.census.stored_on(node.node_id)) if statistics.census else None,
                "union_size": node.union_size,
                "state": node.condition,
                "since": node.since,
                "zone": node.zone or None,
                "disk_mb": _mib(node.disk_bytes),
                "free_mb": _mib(node.free_bytes),
                "foreign_writes": node.foreign_writes,
            }
            for node in statistics.nodes
        ],
        "config": {
            "num_nodes": statistics.cluster.num_nodes,
            "n_prime": statistics.cluster.n_prime,
            "tau": statistics.cluster.tau,
            "replication_factor": conf.replication_factor,
            "chunk_size": conf.chunk_size,
        },
        "files_stored": statistics.files,
        "objects_stored": statistics.objects,
        "estimates": {**estimates(survey), "as_of": statistics.surveyed_at} if survey else None,
        "sketch": {
            "n_prime": survey.n_prime if survey else statistics.cluster.n_prime,
            "bytes_per_node": sketch_size(statistics.cluster.n_prime),
            "load": round(survey.load, 4) if survey else None,
            "false_positive_rate": round(survey.false_positive_rate, 4) if survey else None,
            "trusted": statistics.sketch_state == "trusted",
            "generation": statistics.generation,
            "as_of": statistics.surveyed_at,
        },
        "overlap": {"nodes": survey.node_ids, **asdict(survey.overlap)} if survey and survey.overlap else None,
        "on_disk": on_disk(statistics),
        "blast_radius": [gathering(one) for one in survey.gatherings] if survey else None,
        "counters": statistics.counters,
    }


def _mib(size: int | None) -> float | None:
    return None if size is None else round(size / MIB, 2)


def estimates(survey: Survey) -> dict[str, Any]:
    """The figures that the sketches alone give, each with its 95 % interval."""
    last = len(survey.spectrum)
    return {
        "union": estimate(survey.union),
        "spectrum": [
            {"replicas": replicas, "or_more": replicas == last < len(survey.node_ids), **estimate(chunks)}
            for replicas, chunks in enumerate(survey.spectrum, 1)
        ],
        "average_replication": estimate(survey.average_replication),
        "chunks_below_target": estimate(survey.below_target),
    }


def on_disk(statistics: Statistics) -> dict[str, Any]:
    """The figures that listings and audits found on the disks.

    All figures outside ``on_disk`` come from PostgreSQL and Redis.
    """
    return {
        "census": _census(statistics.census) if statistics.census else None,
        "audited_since": statistics.audited_since,
    }


def _census(census: LastCensus) -> dict[str, Any]:
    figures = asdict(census)
    del figures["stored"]  # The entry of each node has the figure of this node.
    return {**figures, "on_disk_bytes": census.all_stored}


def gathering(found: Gathering) -> dict[str, Any]:
    """A set of nodes, and the number of chunks that would be lost with these nodes."""
    return {
        "nodes": found.node_ids,
        "zone": found.zone or None,
        "chunks": estimate(found.chunks),
        "expected": found.expected,
        "score": found.score,
        "bound": found.bound,
        "out_of_bounds": found.is_out_of_bounds,
    }


def estimate(found: Estimate) -> dict[str, Any]:
    """A figure and its interval. Saturated registers give only a lower bound."""
    upper = found.upper_bound
    return {
        "estimate": round(found.estimate, 3),
        "lower_bound": round(found.lower_bound, 3),
        "upper_bound": None if upper is None else round(upper, 3),
        "saturated": found.saturated,
    }


def route(chunk_hash: str, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The answer of ``/route``."""
    return {
        "chunk_hash": chunk_hash,
        "candidates": [
            {
                "node_id": candidate.node_id,
                "probability": round(candidate.probability, 4),
                "register": candidate.register,
                "online": candidate.online,
            }
            for candidate in candidates
        ],
    }


def upload_status(upload: Resumable) -> dict[str, Any]:
    """The answer of ``/uploads/<id>``."""
    job = upload.job
    return {
        "id": str(upload.pk),
        "file_name": upload.name,
        "metadata": upload.metadata,
        "stage": _stage(upload),
        "offset": upload.offset,
        "length": upload.length,
        "job": None if job is None else str(job.pk),
        "progress": None if job is None else {"done": job.done, "total": job.total},
        "waiting_for": (job.waiting_for or None) if job else None,
        "file_hash": job.file_hash if job else None,
        "error": job.error if job else None,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
    }


def _stage(upload: Resumable) -> str:
    job = upload.job
    if job is None:
        return "sent" if upload.is_partial and upload.is_complete else "sending"
    if job.state == Job.State.SUCCEEDED:
        return "done"
    if job.is_terminal:
        return "failed"
    return "storing" if job.file_hash else "hashing"


def job_status(job: Job) -> dict[str, Any]:
    """The answer of ``/jobs/<id>``."""
    return {
        "id": str(job.pk),
        "kind": job.kind,
        "subject": job.subject,
        "file_hash": job.file_hash,
        "state": job.state,
        "waiting_for": job.waiting_for or None,
        "progress": {"done": job.done, "total": job.total},
        "size": job.size,
        "attempts": job.attempts,
        "error": job.error,
        "result": job.result,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def node(view: NodeView, census: LastCensus | None) -> dict[str, Any]:
    """One entry of ``/nodes``. Sizes are in bytes."""
    row = view.node
    return {
        "node_id": row.node_id,
        "state": row.condition,
        "since": view.since,
        "url": row.url,
        "zone": row.zone or None,
        "foreign_writes": row.foreign_writes,
        "copies": row.chunks,
        "bytes": row.bytes,
        "on_disk_bytes": census.stored_on(row.node_id) if census else None,
        "disk_bytes": row.file_system_bytes or None,
        "free_bytes": view.free_bytes,
        "audit": asdict(view.audit) if view.audit else None,
        "census": {"taken_at": census.taken_at, "listed": row.node_id not in census.silent} if census else None,
        "jobs": [job_status(job) for job in view.jobs],
    }


def key(row: Key) -> dict[str, Any]:
    """One entry of ``/keys``, without the secret."""
    return {
        "id": row.pk,
        "owner": row.owner.username,
        "name": row.name,
        "scopes": row.scopes.split(),
        "bucket": row.bucket or None,
        "prefix": row.prefix or None,
        "state": row.state(clock.now()),
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
        "revoked_at": row.revoked_at,
    }


def act(done: Act) -> dict[str, Any]:
    """One entry of ``/activity``."""
    return asdict(done)
