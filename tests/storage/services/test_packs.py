"""A store whose nodes keep chunks in packs."""

from __future__ import annotations

import dataclasses
import errno
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client

from storage import tasks
from storage.cluster import topology
from storage.cluster.topology import Topology
from storage.exceptions import VolumeOffline
from storage.management import operation
from storage.models import Node
from storage.services import audit, drain, probe, provision
from storage.tracking import counting, trust
from storage.volumes import PackVolume
from storage.volumes.packs.pack_file import Pack
from storage.volumes.packs.records import DATA, MARK_OFFSET
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of
from tests.support.packs import copies_in, failing, place, without_index


@pytest.fixture
def converted(cluster: ClusterUnderTest, settings: Any) -> ClusterUnderTest:
    """A store of five nodes of files, of an earlier release, to which five nodes of packs were added."""
    cluster.upload(content_of(30), "before")
    settings.OCC = dataclasses.replace(cluster.configuration, node_volumes="pack", compress=True, num_nodes=10)
    provision.provision(settings.OCC)
    topology.forget()
    return cluster


def test_nodes_of_files_go_on_and_new_nodes_are_of_packs(converted: ClusterUnderTest) -> None:
    urls = {node.node_id: node.url for node in Node.objects.all()}
    assert (urls["node_000"], urls["node_005"]) == ("node_000", "pack:node_005")
    file = converted.upload(content_of(20, "after"), "after")
    assert converted.download(file) == content_of(20, "after")
    packed = [chunk_hash for i in range(5, 10) for chunk_hash in copies_in(converted.folder(f"node_00{i}"))]
    assert packed, "new nodes get their share"


def test_where_no_hole_can_be_punched_new_nodes_are_of_files(
    cluster: ClusterUnderTest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OCC = dataclasses.replace(cluster.configuration, node_volumes="pack", num_nodes=6)
    with monkeypatch.context() as patch:
        patch.setattr(Pack, "punch", failing(errno.EOPNOTSUPP))
        provision.provision(settings.OCC)
        assert provision.add().url == "node_006"
    assert provision.add().url == "pack:node_007"
    urls = {node.node_id: node.url for node in Node.objects.all()}
    assert urls["node_005"] == "node_005"


def test_a_census_says_what_compressed_copies_take(converted: ClusterUnderTest) -> None:
    converted.upload(b"the same words again " * 10_000)
    converted.result_of(audit.request_census())
    found = {node["node_id"]: node for node in Client().get("/nodes").json()["nodes"]}
    taken = {node_id: (node["on_disk_bytes"], node["bytes"]) for node_id, node in found.items() if node["copies"]}
    packed = [taken[node_id] for node_id in taken if found[node_id]["url"].startswith("pack:")]
    assert packed
    assert all(0 < on_disk < size / 10 for on_disk, size in packed)
    assert all(on_disk == size for node_id, (on_disk, size) in taken.items() if found[node_id]["url"] == node_id)
    census = Client().get("/status").json()["on_disk"]["census"]
    assert census["on_disk_bytes"] == sum(on_disk for on_disk, _ in taken.values()) < census["bytes"]


def test_a_drain_converts_the_store(converted: ClusterUnderTest) -> None:
    files = {content_of(20, "after"): converted.upload(content_of(20, "after"), "after")}
    before = converted.upload(content_of(30), "before")
    for number in range(5):
        drain.request(f"node_00{number}")
        converted.maintain()
    assert {node.url for node in Node.objects.exclude(state="retired")} == {f"pack:node_00{i}" for i in range(5, 10)}
    assert converted.download(before) == content_of(30)
    for data, file in files.items():
        assert converted.download(file) == data
    for number in range(5, 10):
        audit.request(f"node_00{number}")
    results: list[Any] = [job.result for job in converted.maintain() if job.kind == "audit"]
    assert len(results) == 5
    for name in ("corrupt", "unreadable", "short", "lost", "leftovers"):
        assert not any(result[name] for result in results), name
    assert converted.false_negatives() == []


def test_compressed_chunks_take_less_room_and_come_back_whole(converted: ClusterUnderTest) -> None:
    data = b"the same words again and again. " * (8 * CHUNK_SIZE // 32)
    data = b"".join(bytes([i]) + data[i * CHUNK_SIZE : (i + 1) * CHUNK_SIZE - 1] for i in range(8))
    file = converted.upload(data, factor=5)
    assert converted.download(file) == data
    volumes = [member.lane.volume for member in converted.members()]
    totals = [volume.totals() for volume in volumes if isinstance(volume, PackVolume)]
    assert sum(each.stored for each in totals) < sum(each.size for each in totals)


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def test_an_operator_has_an_index_made_again(converted: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "sleep", lambda _: tasks.maintain())
    converted.maintain()
    file = converted.upload(content_of(20, "after"), "after")
    node_id = "node_007"
    before = sorted(copies_in(converted.folder(node_id)))
    planned = run("rebuild_index", node_id, "--dry-run")
    inode = (converted.folder(node_id) / "index.sqlite").stat().st_ino
    said = run("rebuild_index", node_id)
    assert planned in said
    assert said.endswith("succeeded\n") or "reconcile" in said
    assert (converted.folder(node_id) / "index.sqlite").stat().st_ino != inode
    assert sorted(copies_in(converted.folder(node_id))) == before
    assert converted.download(file) == content_of(20, "after")
    with pytest.raises(CommandError, match="one file for each copy"):
        run("rebuild_index", "node_000")


def test_a_copy_that_an_index_brings_back_is_not_denied(converted: ClusterUnderTest) -> None:
    """A power cut undid the mark of a copy in the trash. Then the index is lost, and the copy is a replica again."""
    file = converted.upload(content_of(20, "after"), "after")
    converted.maintain()
    member = next(each for each in converted.members() if each.node_id == "node_007")
    chunk_hash, *_ = copies_in(converted.folder("node_007"))
    builds = counting.builds(Topology.load(), ["node_007"])
    assert member.lane.call(member.lane.volume.trash, chunk_hash, "t")
    counting.uncount(Topology.load(), {"node_007": [chunk_hash]}, builds)
    pack, offset, _ = place(converted.folder("node_007"), chunk_hash)
    with pack.open("r+b") as marks:
        marks.seek(offset + MARK_OFFSET)
        marks.write(bytes(DATA - MARK_OFFSET))
    without_index(converted.folder("node_007"))
    assert member.lane.call(member.lane.volume.sizes, [chunk_hash]) != [None]
    assert converted.false_negatives() == []
    probe.probe()
    assert "reconcile" in [job.kind for job in converted.maintain()]
    assert trust.outdated(Topology.load()) == {}
    assert converted.false_negatives() == []
    assert converted.download(file) == content_of(20, "after")


def test_without_postgresql_no_index_brings_anything_back(
    converted: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted.upload(content_of(20, "after"), "after")
    member = next(each for each in converted.members() if each.node_id == "node_007")
    before = sorted(copies_in(converted.folder("node_007")))
    without_index(converted.folder("node_007"))
    with monkeypatch.context() as away, pytest.raises(VolumeOffline, match="waits for PostgreSQL"):
        away.setattr(Node, "distrust_sketches", refused)
        member.lane.call(member.lane.volume.sizes, before)
    member.lane.call(member.lane.volume.sizes, before)
    assert sorted(copies_in(converted.folder("node_007"))) == before


def refused(*_: object) -> None:
    raise OperationalError("the server closed the connection unexpectedly")


def test_volumes_can_move_with_their_folder(converted: ClusterUnderTest, settings: Any) -> None:
    file = converted.upload(content_of(20, "after"), "after")
    folder = converted.configuration.storage_dir
    moved = folder.with_name(f"{folder.name}-moved")
    folder.rename(moved)
    try:
        settings.OCC = dataclasses.replace(settings.OCC, storage_dir=moved)
        topology.forget()
        assert converted.download(file) == content_of(20, "after")
    finally:
        moved.rename(folder)
