"""The JSON of requests and responses: the fields of the README, to the letter."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from storage.conf import configuration
from storage.models import Content, File, Job
from storage.services.statistics import Statistics
from storage.services.verify import Report
from storage.topology import Topology

MIB = 1 << 20


class ReplicationFactorField(serializers.IntegerField):
    """How many replicas: at least one, at most as many as there are nodes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, **kwargs)

    def to_internal_value(self, data: Any) -> int:
        value: int = super().to_internal_value(data)
        nodes = len(Topology.recent().members)
        if value > nodes:
            raise serializers.ValidationError(f"The cluster has {nodes} nodes.")
        return value


class UploadSerializer(serializers.Serializer[Any]):
    file = serializers.FileField(allow_empty_file=True)
    replication_factor = ReplicationFactorField(required=False, help_text="how many nodes get a copy")


class RebalanceSerializer(serializers.Serializer[Any]):
    replication_factor = ReplicationFactorField(required=False, help_text="the file's new factor")


class RenameSerializer(serializers.Serializer[Any]):
    file_name = serializers.CharField(max_length=255)


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


def verification(report: Report) -> dict[str, Any]:
    """The answer of ``/verify``."""
    health = report.health
    return {
        "file_hash": report.file.content.file_hash,
        "file_name": report.file.name,
        "retrievable": health.retrievable,
        "missing_chunks": report.missing,
        "replication": {"min": health.minimum, "avg": health.average, "max": health.maximum},
        "replication_factor": report.file.replication_factor,
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
    sketches = statistics.sketches
    conf = configuration()
    chunks = statistics.chunks
    return {
        "network": {
            "total_nodes": len(statistics.nodes),
            "union_size": round(sketches.union.estimate) if sketches else None,
            "total_chunks": statistics.replicas,
            "total_storage_mb": round(statistics.bytes / MIB, 2),
            "average_replication": round(statistics.replicas / chunks, 3) if chunks else 0.0,
            "level_counts": sketches.level_counts if sketches else None,
            "distinct_chunks": chunks,
            "sketches": statistics.sketch_state,
        },
        "nodes": [
            {
                "node_id": node.node_id,
                "chunks": node.chunks,
                "size_mb": round(node.bytes / MIB, 2),
                "union_size": node.union_size,
                "state": node.condition,
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
    }


def job_status(job: Job) -> dict[str, Any]:
    """The answer of ``/jobs/<id>``."""
    return {
        "id": str(job.pk),
        "kind": job.kind,
        "file_hash": job.file_hash,
        "state": job.state,
        "waiting_for": job.waiting_for or None,
        "progress": {"done": job.done, "total": job.total},
        "attempts": job.attempts,
        "error": job.error,
        "result": job.result,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }
