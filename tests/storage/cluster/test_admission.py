"""Admission of uploads. A refusal says which resource is lacking, and where."""

from __future__ import annotations

import dataclasses
import os
import shutil
from typing import Any

import pytest

from storage.cluster import admission
from storage.cluster.admission import admit, staging_lack
from storage.exceptions import OutOfSpace, StagingUnavailable
from storage.models import Node, nobody
from storage.services import intake, probe
from storage.volumes import FilesystemVolume, Space
from storage.volumes.base import HEADROOM, HEADROOM_FILES
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest

PLENTY = 1 << 40


@pytest.fixture(autouse=True)
def forget_the_last_look(cluster: ClusterUnderTest) -> None:
    admission._room.forget()


def give(patch: pytest.MonkeyPatch, *, free: int = PLENTY, free_files: int | None = None, shared: bool = True) -> None:
    """Give the nodes ``free`` bytes and ``free_files`` inodes, on one disk if ``shared``, else on a disk each."""
    patch.setattr(
        FilesystemVolume,
        "space",
        lambda self: Space("disk" if shared else str(self.root), free, PLENTY, free_files=free_files),
    )


def test_each_chunk_of_each_copy_takes_an_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, free_files=HEADROOM_FILES + 20)
    # Two copies of each chunk are enough to acknowledge an upload: ten chunks need the 20 free inodes.
    admit(10 * CHUNK_SIZE, 3)
    with pytest.raises(OutOfSpace, match="free inodes"):
        admit(11 * CHUNK_SIZE, 3)
    give(monkeypatch, free_files=HEADROOM_FILES + 20, shared=False)
    admit(20 * CHUNK_SIZE, 3)
    with pytest.raises(OutOfSpace, match="too few nodes have free inodes"):
        admit(20 * CHUNK_SIZE + 1, 3)


def test_bytes_that_are_lacking_are_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, free=HEADROOM + 2 * 5000, free_files=PLENTY)
    admit(5000, 3)
    with pytest.raises(OutOfSpace, match="too few nodes have free space"):
        admit(5001, 3)


def test_a_file_system_without_a_limit_of_inodes_lacks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, free_files=None)
    admit(10_000 * CHUNK_SIZE, 3)


def test_what_full_nodes_lack_is_said_when_the_probe_has_seen_it_already(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, free_files=10)
    probe.probe()
    assert {node.condition for node in Node.objects.all()} == {"full"}
    with pytest.raises(OutOfSpace, match="free inodes"):
        admit(100, 3)


def test_uploads_under_way_have_their_inodes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 100 * CHUNK_SIZE
    with intake.Reception(nobody(), declared_size=size):
        give(monkeypatch, free_files=HEADROOM_FILES + 3 * 100 + 3 + 2 * 100 - 1)
        admission._room.forget()
        with pytest.raises(OutOfSpace, match="free inodes"):
            admit(size, 3)
    admit(size, 3)


@pytest.mark.parametrize(("place", "word"), [("f_bavail", "free space"), ("f_favail", "free inodes")])
def test_staging_that_is_full_is_named(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch, place: str, word: str
) -> None:
    assert staging_lack() == ""
    names = ["f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"]
    found = list(os.statvfs(cluster.configuration.staging_dir))
    found[names.index("f_files")], found[names.index("f_favail")] = PLENTY, PLENTY
    found[names.index(place)] = 0
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(found))
    assert staging_lack() == f"staging has no {word}"
    with pytest.raises(OutOfSpace, match=f"staging has too little {word}"):
        admit(100, 3)


def test_staging_that_is_missing_or_not_writable_is_named_and_heals(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as rights:
        rights.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
        assert "cannot be written to" in staging_lack()
        with pytest.raises(StagingUnavailable, match="cannot be written to"):
            admit(100, 3)
    shutil.rmtree(cluster.configuration.staging_dir)
    assert "No such file" in staging_lack()
    with pytest.raises(StagingUnavailable, match="No such file"):
        admit(100, 3)
    cluster.configuration.staging_dir.mkdir()
    assert staging_lack() == ""
    admit(100, 3)


def test_staging_that_goes_away_during_an_upload_is_no_lack_of_space(cluster: ClusterUnderTest, settings: Any) -> None:
    with intake.Reception(nobody(), declared_size=100) as reception:
        reception.write(b"x" * 100)
        settings.OCC = dataclasses.replace(cluster.configuration, storage_dir=cluster.configuration.storage_dir / "no")
        with pytest.raises(StagingUnavailable):
            reception.accept("name", 3, durable=False)
