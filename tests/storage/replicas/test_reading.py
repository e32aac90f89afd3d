"""Reading chunks from volumes in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from storage.cluster.topology import Member, Topology
from storage.exceptions import VolumeOffline
from storage.replicas import reading
from storage.tracking import routing
from storage.tracking.routing import Route
from storage.volumes import Identity, Lane, MemoryVolume
from tests.contract.test_volume import chunk

JOINED = datetime(2026, 1, 1, tzinfo=UTC)

HASH, DATA = chunk()


class Volume(MemoryVolume):
    """A volume that counts the reads that come through its lane.

    These reads through the lane wait until the event ``answers`` is set.
    """

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity.node_id)
        self.create(identity)
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()

    def read(self, chunk_hash: str, *, uncached: bool = False) -> bytes:
        self.asked += 1
        self.answers.wait()
        return super().read(chunk_hash, uncached=uncached)

    def rot(self) -> None:
        self._replicas[HASH] = b"rotten"


@pytest.fixture
def volumes() -> list[Volume]:
    made = [Volume(Identity("cluster", f"node_{number:03}", str(number))) for number in range(2)]
    for volume in made:
        volume.write({HASH: DATA})
    return made


@pytest.fixture
def members(volumes: list[Volume]) -> Iterator[list[Member]]:
    def member(volume: Volume) -> Member:
        lane = Lane(volume, timeout=0.2)
        return Member(volume.name, "active", True, True, "", 1.0, 1.0, 0, 0, 0, 0, JOINED, volume.identity(), lane)

    yield [member(volume) for volume in volumes]
    for volume in volumes:
        volume.answers.set()


def read(members: list[Member], monkeypatch: pytest.MonkeyPatch, reports: list[str] | None = None) -> bytes:
    reported = [] if reports is None else reports
    monkeypatch.setattr(routing, "locate", lambda topology, hashes, factor: [Route(members) for _ in hashes])
    monkeypatch.setattr(reading, "report", reported.append)
    topology = Topology(None, tuple(members))  # type: ignore[arg-type]
    return b"".join(reading.read_ahead(topology, iter([HASH]), len(DATA), 2))


def test_what_is_in_memory_is_read_in_place(
    volumes: list[Volume], members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read from memory uses no thread of the volume's lane, so it does not wait for a disk that hangs."""
    volumes[0].answers.clear()
    assert read(members, monkeypatch) == DATA
    assert [volume.asked for volume in volumes] == [0, 0]


def test_what_has_to_come_from_a_disk_comes_through_the_lane(
    volumes: list[Volume], members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk hangs, the chunk is read from another node."""
    for volume in volumes:
        monkeypatch.setattr(volume, "read_cached", lambda chunk_hash: None)
    assert read(members, monkeypatch) == DATA
    volumes[0].answers.clear()
    assert read(members, monkeypatch) == DATA
    assert [volume.asked for volume in volumes] == [2, 1]


def test_a_bad_copy_in_memory_is_reported_and_another_serves(
    volumes: list[Volume], members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes[0].rot()
    reports: list[str] = []
    assert read(members, monkeypatch, reports) == DATA
    assert reports == [HASH]


def test_a_volume_whose_breaker_is_open_is_not_asked(
    volumes: list[Volume], members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(chunk_hash: str) -> bytes | None:
        raise VolumeOffline("asked")

    monkeypatch.setattr(volumes[0], "read_cached", asked)
    members[0].lane.breaker.trip()
    assert read(members, monkeypatch) == DATA
    assert [volume.asked for volume in volumes] == [0, 1]
