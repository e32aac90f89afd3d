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
    "troubles": [
        {
            "name": "nodes",
            "failing": True,
            "text": "too few nodes take copies: 1 of 5, and an upload needs 2",
            "since": "2026-11-27T11:17:02Z",
        }
    ],
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
BUCKETS = {
    "buckets": [
        {
            "name": "photos",
            "created_at": "2026-11-27T12:00:00Z",
            "objects": 2,
            "bytes": 1073741824,
            "quota": {"objects": None, "bytes": 10737418240},
            "replication_factor": 3,
        }
    ],
    "next": None,
}
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
    "size": 262144,
    "attempts": 1,
    "error": None,
    "result": {"added": 1, "removed": 0},
    "created_at": "2026-11-27T03:52:32.671584Z",
    "started_at": "2026-11-27T03:52:32.849344Z",
    "finished_at": "2026-11-27T03:52:32.896003Z",
}
JOBS = {"jobs": [{**JOB_ENTRY, "file_name": "example.pdf"}], "next": None}
JOB_CANCELLED = {**JOB_ENTRY, "state": "cancelled", "result": None}
JOB_QUEUED = {
    **JOB_ENTRY,
    "kind": "drain",
    "subject": "node_004",
    "file_hash": None,
    "state": "queued",
    "progress": {"done": 0, "total": 0},
    "size": 0,
    "attempts": 0,
    "result": None,
    "started_at": None,
    "finished_at": None,
}
OWN_LINKS = {"links": [{**SHARE_LINK, "file_hash": FILE_HASH}], "next": None}
KEY = {
    "id": "OCC4GT7Q0N2M5V8X1Z3B",
    "owner": "ann",
    "name": "backup",
    "scopes": ["delete", "read", "write"],
    "bucket": None,
    "prefix": None,
    "state": "good",
    "created_at": "2026-11-27T12:00:00Z",
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
}
KEYS = {"keys": [KEY]}
NEW_KEY = {**KEY, "secret": "FortyCharactersThatAreShownOnlyThisOnce0"}
ACTIVITY = {
    "activity": [
        {
            "at": "2026-11-27T12:00:00Z",
            "actor": "ann",
            "means": "browser",
            "action": "rename",
            "subject": "example.pdf",
            "file_hash": FILE_HASH,
            "owner": "ann",
            "detail": "report.pdf",
        }
    ],
    "next": None,
}
NODE: dict[str, Any] = {
    "node_id": "node_004",
    "state": "active",
    "since": "2026-11-27T03:52:32Z",
    "url": "node_004",
    "zone": None,
    "foreign_writes": False,
    "copies": 3,
    "bytes": 786432,
    "on_disk_bytes": 131072,
    "disk_bytes": 270_553_174_016,
    "free_bytes": 152_186_160_384,
    "audit": {"ended_at": "2026-11-27T04:00:00Z", "state": "succeeded", "found": {"corrupt": 0, "lost": 0}},
    "census": {"taken_at": "2026-11-27T11:00:00Z", "listed": True},
    "jobs": [],
}
NODES = {"nodes": [NODE]}
NEW_NODE = {"node_id": "node_005", "url": "file:///srv/disk6", "zone": "rack 2"}
AUDIT_PLAN = {
    "node_id": "node_004",
    "copies": 3,
    "bytes": 786432,
    **dict.fromkeys(("short", "lost", "surplus", "orphans", "leftovers"), 0),
    "seconds": 0,
}
DRAIN_PLAN = {"node_id": "node_004", "copies": 3, "bytes": 786432, "to_write": 786432, "orphans": 0}
RETIRE_PLAN = {"node_id": "node_004", "unreadable": 0}
HISTORY = {
    "samples": [
        {
            "at": "2026-11-27T12:00:00Z",
            "files": 1204,
            "bytes": 315621376,
            "reads": 2408,
            "later_looks": 3,
            "queued": 0,
            "waiting": 1,
            "stored": 946864128,
            "disks": 270_553_174_016,
            "free": 152_186_160_384,
            "load": 0.12,
            "false_positives": 0.07,
        }
    ]
}
