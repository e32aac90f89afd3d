"""The measured operations: requests, periodic work, and the SQL statements of both."""

from __future__ import annotations

import secrets
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.growth.installation import Client, Installation
from benchmarks.growth.rows import name_of
from storage.cluster.topology import Topology
from storage.conf import configuration
from storage.models import Body, Chunk, Content, File, ManifestEntry, Sort, Upload, nobody, record_acceptance
from storage.models.content import Health
from storage.services import catalogue, probe, reclaim, survey, sweep

SMALL = 4096  # The size of an uploaded file in bytes.
SEARCHED = 77  # The number of the file that the requests ask for.


@dataclass(frozen=True)
class Installed:
    """An installation with some files that were really uploaded.

    Attributes:
        hashes: hashes of the files that were really uploaded. File number i, from 0 on, has the name ``name_of(i)``.
    """

    installation: Installation
    hashes: list[str]


def requests(installed: Installed) -> dict[str, Callable[[], Any]]:
    """Return the requests of a user and an operator. Answers are equally long with few rows and with many."""
    client, operator = Client(installed.installation.port), installed.installation.log_in()
    one = installed.hashes[SEARCHED]
    admin = "/admin/storage"
    return {
        "`/files?limit=100`": lambda: client.get("/files?limit=100"),
        "`/files`, 1000 of them": lambda: client.get("/files"),
        **{
            f"`/files?sort={sort}`, 1000 of them": partial(client.get, f"/files?sort={sort}")
            for sort in ("-created_at", "file_name", "-file_name", "file_size", "-file_size")
        },
        "`/files?prefix=`, 1000 of them": lambda: client.get("/files?prefix=i&sort=file_name"),
        "`/files/<hash>`": lambda: client.get(f"/files/{one}"),
        "`/status`": lambda: client.get("/status"),
        "`/verify` of a small file": lambda: client.get(f"/verify/{one}"),
        "`/download` of a small file": lambda: client.ask("GET", f"/download/{one}"),
        "upload of a small file": lambda: client.upload("new.bin", SMALL),
        "upload and deletion": lambda: client.ask("DELETE", f"/files/{client.upload('gone.bin', SMALL)}"),
        "admin: files": lambda: operator.ask("GET", f"{admin}/file/"),
        "admin: search, one name": lambda: operator.ask("GET", f"{admin}/file/?q=%22+{SEARCHED}.txt%22"),
        "admin: search, a frequent word": lambda: operator.ask("GET", f"{admin}/file/?q=invoice"),
        "admin: search, a hash": lambda: operator.ask("GET", f"{admin}/file/?q={one[:12]}"),
        "admin: files under ingest": lambda: operator.ask("GET", f"{admin}/file/?content__state__exact=ingesting"),
        "admin: jobs": lambda: operator.ask("GET", f"{admin}/job/"),
    }


def periodic() -> dict[str, Callable[[], Any]]:
    """Return the work that the system does every few seconds."""
    return {
        "sweep": sweep.sweep,
        "probe": probe.probe,
        "survey": survey.survey,
        "reclaim": lambda: reclaim.reclaim(600),
    }


def statements(installed: Installed) -> dict[str, Callable[[], Any]]:
    """Return the operations whose statements PostgreSQL explains."""
    one = installed.hashes[SEARCHED]
    return {
        "/files": lambda: catalogue.page(nobody(), limit=100),
        "/files by prefix": lambda: catalogue.page(nobody(), limit=1000, sort=Sort("file_name"), prefix="i"),
        "/status: totals": lambda: (File.count_ready(), Content.chunks_by_target()),
        "/verify": lambda: catalogue.find(nobody(), one).content.manifest(),
        "upload": upload,
        "deletion": lambda: catalogue.delete(catalogue.find(nobody(), one)),
        "sweep": sweep.sweep,
        "probe: stale summaries": lambda: Content.objects.outdated(1 << 30, 500),
        "reclaim: what is due": lambda: reclaim.plan(Topology.load(), configuration().reclaim_grace),
        "audit: one range of 256": lambda: list(Chunk.objects.wanted("7f")),
    }


def upload() -> None:
    """Execute the statements of an upload of sixteen chunks, from the recording of the upload to its end."""
    hashes = [secrets.token_hex(32) for _ in range(16)]
    body = Body(
        upload_id=uuid.uuid4(),
        is_known=False,
        owner_id=nobody().pk,
        file_hash=secrets.token_hex(32),
        name="explained",
        size=16 * SMALL,
        chunk_size=SMALL,
        chunk_count=16,
        piece_checksums=b"",
        replication_factor=3,
    )
    accepted = record_acceptance(body, durable=False)
    assert accepted is not None
    wanted = {(accepted.upload_id, chunk_hash): 3 for chunk_hash in hashes}
    ids = Upload.objects.pin(wanted, dict.fromkeys(hashes, SMALL))
    ManifestEntry.record(
        [(accepted.content_id, position, ids[chunk_hash]) for position, chunk_hash in enumerate(hashes)]
    )
    assert Content.objects.whole([accepted.content_id]) == {accepted.content_id}
    Content.objects.become_ready({accepted.content_id: Health(True, 3, 3.0, 3, 0)})
    Upload.objects.release([accepted.upload_id])


def milliseconds(operation: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    operation()
    return (time.perf_counter() - begun) * 1000


def medians(operations: Sequence[Callable[[], Any]], repeat: int) -> list[float]:
    """Return the median milliseconds of each operation.

    The operations run in turn. The first three rounds do not count.
    """
    rounds = [[milliseconds(operation) for operation in operations] for _ in range(repeat + 3)]
    return [statistics.median(times) for times in zip(*rounds[3:], strict=True)]


def prepare(installation: Installation, files: int) -> Installed:
    """Upload ``files`` small files."""
    client = Client(installation.port)
    return Installed(installation, [client.upload(name_of(number), SMALL) for number in range(files)])
