"""Examples of the documents of answers: those of ``docs/api.md``."""

from __future__ import annotations

from typing import Any

FILE_HASH = "a40d834e1d0a92cf4dbf2b9e2f4c5d07f6c1c1b0a6b9d5bb1b1c3a0b6d7f8e91"
CHUNK_HASH = "01a884164b6e5d9dd4c7f5a9d1be4ce8b1e7b4f2c8e0b3d6a5f4c3b2a1908f7e"
JOB = "fe8cd99f-18dd-4afe-83ce-53790ee7463a"
LINK = "0b0a4c1e-77aa-4b0f-9a58-2f6d1e3c5b7d"
HOLDERS = ["node_002", "node_003", "node_004"]
NAMED = {"file_hash": FILE_HASH, "file_name": "example.pdf"}

HEALTH = {"status": "healthy", "nodes": 5, "ready": True}
UNHEALTHY = {
    "status": "unhealthy",
    "nodes": 1,
    "ready": False,
    "failing": {"nodes": "too few nodes take copies: 1 of 5, and an upload needs 2"},
}
ACCOUNT = {
    "owner": "ann",
    "scopes": ["delete", "read", "write"],
    "used": {"files": 2, "bytes": 524288},
    "quota": {"files": None, "bytes": 1073741824},
}
UPLOADED: dict[str, Any] = {
    "success": True,
    **NAMED,
    "file_size": 262144,
    "chunks": 1,
    "replication_factor": 3,
    "distribution": {CHUNK_HASH: HOLDERS},
    "deduplicated": False,
}
AGAIN = {**UPLOADED, "deduplicated": True}
UPLOAD_ACCEPTED = {"success": True, **NAMED, "file_size": 262144, "job": JOB}
FILE: dict[str, Any] = {
    **NAMED,
    "file_size": 262144,
    "chunks": 1,
    "retrievable": True,
    "min_replication": 3,
    "avg_replication": 3.0,
    "max_replication": 3,
    "replication_factor": 3,
    "state": "ready",
    "health_as_of": "2026-11-27T11:17:02.529866Z",
    "health_exact": True,
    "created_at": "2026-11-27T11:17:02.191733Z",
}
NAMED_FILE = {**FILE, "names": ["example.pdf", "report.pdf"]}
FILES = {"total_files": 1, "files": [FILE], "next": None}
SHARE_LINK = {
    "id": LINK,
    "url": "http://localhost:5000/share/0b0a....kq3X.../example.pdf",
    "file_name": "example.pdf",
    "created_at": "2026-11-27T12:00:00Z",
    "expires_at": "2026-11-28T12:00:00Z",
}
VERIFICATION = {
    **NAMED,
    "retrievable": True,
    "missing_chunks": [],
    "replication": {"min": 3, "avg": 3.0, "max": 3},
    "replication_factor": 3,
    "chunks": [{"index": 0, "hash": CHUNK_HASH, "size": 262144, "replicas": 3, "nodes": HOLDERS}],
}
ROUTE = {
    "chunk_hash": CHUNK_HASH,
    "candidates": [
        {"node_id": "node_003", "probability": 1.0, "register": 1, "online": True},
        {"node_id": "node_000", "probability": 0.0, "register": 0, "online": True},
    ],
}
REBALANCED = {
    "success": True,
    **NAMED,
    "replication_factor": 4,
    "new_distribution": {CHUNK_HASH: ["node_000", *HOLDERS]},
}
REBALANCE_ACCEPTED = {"success": True, **NAMED, "replication_factor": 4, "job": JOB}
JOB_ENTRY = {
    "id": JOB,
    "kind": "rebalance",
    "subject": FILE_HASH,
    "file_hash": FILE_HASH,
    "state": "succeeded",
    "waiting_for": None,
    "progress": {"done": 1, "total": 1},
    "attempts": 1,
    "error": None,
    "result": {"added": 1, "removed": 0},
    "created_at": "2026-11-27T03:52:32.671584Z",
    "started_at": "2026-11-27T03:52:32.849344Z",
    "finished_at": "2026-11-27T03:52:32.896003Z",
}
JOBS = {"jobs": [JOB_ENTRY], "next": None}
