"""A cluster for one test, with a real PostgreSQL, a real Valkey and real directories.

The test does the work of the workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from storage.cluster import topology
from storage.cluster.topology import Member, Topology
from storage.conf import Configuration, configuration
from storage.exceptions import TurnEnded
from storage.jobs import wakeups
from storage.models import AcceptedFile, File, Job, Node, Upload, nobody
from storage.services import health, ingest, intake, probe, retrieve
from storage.services.provision import provision
from storage.tasks import WORK
from storage.tracking import trust
from storage.tracking.store import store_of
from tests.support.packs import PackedCopy

CHUNK_SIZE = 4096


@dataclasses.dataclass(frozen=True)
class AcceptedRows:
    """The rows of an accepted upload in the database."""

    recorded: AcceptedFile
    job: Job
    file: File
    upload: Upload

    @classmethod
    def of(cls, accepted: AcceptedFile) -> AcceptedRows:
        return cls(
            accepted,
            Job.objects.get(pk=accepted.job_id),
            File.objects.select_related("content").get(pk=accepted.file_id),
            Upload(pk=accepted.upload_id),  # A worker may have deleted the row.
        )


class ClusterUnderTest:
    """The operations on the cluster that tests use."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def accept(self, data: bytes, name: str = "file.bin", factor: int = 3) -> AcceptedRows:
        """Receive an upload, up to the job that will ingest it."""
        with intake.Reception(nobody(), declared_size=len(data)) as reception:
            for start in range(0, len(data), 10_000):
                reception.write(data[start : start + 10_000])
            return AcceptedRows.of(reception.accept(name, factor, durable=False))

    def upload(self, data: bytes, name: str = "file.bin", factor: int = 3) -> File:
        """Receive and ingest an upload. Return its file."""
        accepted = self.accept(data, name, factor)
        self.ingest()
        accepted.job.refresh_from_db()
        assert accepted.job.state == Job.State.SUCCEEDED, (accepted.job.state, accepted.job.error)
        return File.objects.select_related("content").get(pk=accepted.file.pk)

    def ingest(self) -> None:
        while ingest.run_queued():
            pass

    def maintain(self) -> list[Job]:
        """Do the queued maintenance jobs, and return the jobs that have ended.

        If a job raises an exception, the test gets it.
        """
        done = []
        while jobs := Job.objects.claim(Job.Queue.MAINTENANCE, most=1, most_bytes=0):
            for job in jobs:
                try:
                    result = WORK[job.kind](job)
                    job.succeed(result if isinstance(result, dict) else {"contents": result})
                except TurnEnded:
                    job.end_turn()
                else:
                    done.append(job)
        return done

    def result_of(self, job: Job) -> Any:
        """Do the queued maintenance, and return the result of ``job``, which must have succeeded."""
        self.maintain()
        job.refresh_from_db()
        assert job.state == Job.State.SUCCEEDED, (job.state, job.error)
        return job.result

    def download(self, file: File) -> bytes:
        return b"".join(self.read(file))

    def read(self, file: File) -> Iterator[bytes]:
        """Begin to download a file. Return the iterator over the file's bytes."""
        return retrieve.retrieve(retrieve.open_file(file.owner, file.content.file_hash))

    def members(self) -> tuple[Member, ...]:
        return Topology.load().members

    def folder(self, node_id: str) -> Path:
        return self.configuration.nodes_dir / node_id

    def replica_path(self, node_id: str, chunk_hash: str) -> Any:
        """The path of a copy's file. On a node of packs: an object with the methods of a path."""
        if (self.folder(node_id) / "packs").exists():
            return PackedCopy(self.folder(node_id), chunk_hash)
        return self.folder(node_id) / "chunks" / chunk_hash[:2] / chunk_hash

    def holders(self, chunk_hash: str) -> list[str]:
        """Return the ids of the nodes whose directories have a copy, without asking the code under test."""
        nodes = Node.objects.values_list("node_id", flat=True)
        return [node_id for node_id in nodes if self.replica_path(node_id, chunk_hash).exists()]

    def take_offline(self, node_id: str) -> None:
        self.folder(node_id).rename(self.folder(node_id).with_suffix(".away"))
        probe.probe()

    def bring_back(self, node_id: str) -> None:
        self.folder(node_id).with_suffix(".away").rename(self.folder(node_id))
        for member in self.members():
            member.lane.breaker.succeeded()
        probe.probe()

    def false_negatives(self) -> list[tuple[str, str]]:
        """List replicas that are on a volume although their register in a trusted sketch is zero (invariant 3)."""
        seen = Topology.load()
        untrusted = {member.node_id for member in trust.untrusted(seen)}
        missed = []
        for member in seen.members:
            if member.node_id in untrusted:
                continue
            hashes = [replica.chunk_hash for replica in member.lane.volume.replicas()]
            counts = store_of(seen.cluster).lookup([member.node_id], hashes).counts[0]
            missed += [(member.node_id, h) for h, count in zip(hashes, counts, strict=True) if not count]
        return missed

    def staged(self) -> list[str]:
        return os.listdir(self.configuration.staging_dir)


@pytest.fixture
def cluster(
    transactional_db: None,
    redis_client: redis.Redis,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ClusterUnderTest]:
    """A cluster of five nodes of files with chunks of 4 KiB. Nothing runs in the background, and wake-ups are dropped.

    The directories are in memory where that is possible, because these tests simulate no power cut.
    """
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="occ-test-", dir=memory if memory.is_dir() else None))
    settings.OCC = dataclasses.replace(
        configuration(),
        storage_dir=folder,
        chunk_size=CHUNK_SIZE,
        num_nodes=5,
        replication_factor=3,
        node_volumes="file",  # Tests look into the directories.
    )
    monkeypatch.setattr(wakeups, "wake", lambda queue, **_: None)
    monkeypatch.setattr(health, "GOOD_SECONDS", 0.0)
    topology.forget()
    nobody.cache_clear()  # The cached row is of an earlier test.
    provision(settings.OCC)
    Topology.load()
    yield ClusterUnderTest(settings.OCC)
    topology.forget()
    nobody.cache_clear()
    shutil.rmtree(folder, ignore_errors=True)


def content_of(chunks: int, salt: str = "") -> bytes:
    """Return bytes that are cut into ``chunks`` distinct chunks. The last chunk is half as long as the others."""
    whole = b"".join(hashlib.sha256(f"{salt}{i}".encode()).digest() * (CHUNK_SIZE // 32) for i in range(chunks))
    return whole[: -CHUNK_SIZE // 2] if chunks else b""
