"""The doctor's checks of disks, volumes, staging, the user and passwords. The tests make each check fail."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from occsite.doctor import disks, passwords
from occsite.doctor.findings import Finding, Level
from storage.cluster import generations, topology
from storage.cluster.topology import Topology
from storage.volumes import Identity, identity_file
from tests.faults.disks import CannotMount, mount, unmount
from tests.support.cluster import ClusterUnderTest
from tests.support.database import DatabaseCopy


def only(check: Callable[[], Iterable[Finding]]) -> Finding:
    (finding,) = check()
    return finding


@contextmanager
def tmpfs(*options: str) -> Iterator[Path]:
    """A small file system in memory; the test is skipped where nothing can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="occ-doctor-", dir="/run" if os.geteuid() == 0 else None))
    try:
        mount("-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder))
    except CannotMount as error:
        folder.rmdir()
        pytest.skip(str(error))
    try:
        yield folder
    finally:
        unmount(folder)
        folder.rmdir()


@pytest.mark.parametrize(
    ("options", "level", "words"),
    [
        (["size=200m"], Level.PROBLEM, "no space is left"),
        (["size=2g", "nr_inodes=100"], Level.PROBLEM, "no inodes is left"),
        (["size=900m"], Level.WARNING, "little is left"),
    ],
)
def test_a_small_disk_is_told(
    cluster: ClusterUnderTest, settings: Any, options: list[str], level: Level, words: str
) -> None:
    assert {finding.level for finding in disks.room_is_left()} == {Level.OK}
    with tmpfs(*options) as folder:
        (folder / "staging").mkdir()
        settings.OCC = dataclasses.replace(cluster.configuration, storage_dir=folder)
        topology.forget()
        finding = only(disks.room_is_left)
    assert finding.level is level
    assert words in finding.found
    assert "STORAGE_DIR, staging" in finding.found


def test_an_fsync_that_waits_for_nothing_is_told(cluster: ClusterUnderTest) -> None:
    # The files of the test's cluster are in memory, where an fsync does nothing.
    finding = only(disks.fsync_waits)
    assert finding.level is Level.WARNING
    assert "node_004" in finding.found
    assert list(cluster.configuration.storage_dir.glob("tmp*")) == []


def test_a_read_only_disk_is_told(cluster: ClusterUnderTest, settings: Any) -> None:
    with tmpfs("size=1g") as folder:
        (folder / "staging").mkdir()
        mount("-o", "remount,ro", str(folder))
        settings.OCC = dataclasses.replace(cluster.configuration, storage_dir=folder)
        topology.forget()
        assert only(disks.fsync_waits).level is Level.PROBLEM


def test_volumes_that_are_away_exchanged_or_of_another_cluster_are_told(cluster: ClusterUnderTest) -> None:
    assert only(disks.volumes_are_ours).level is Level.OK
    away, other, one, two = (cluster.folder(f"node_00{number}") for number in range(4))
    away.rename(away.with_suffix(".away"))
    stranger = Identity(str(uuid4()), "node_001", str(uuid4()))
    (other / identity_file.NAME).write_bytes(identity_file.encode(stranger))
    one.rename(one.with_suffix(".between"))
    two.rename(one)
    one.with_suffix(".between").rename(two)
    found = list(disks.volumes_are_ours())
    assert {finding.level for finding in found} == {Level.PROBLEM}
    words = [finding.found for finding in found]
    assert words[0].startswith("node_000 does not answer")
    assert words[1] == f"node_001 has the volume of another cluster ({stranger.cluster})"
    assert words[2:] == ["node_002 has the volume of node_003", "node_003 has the volume of node_002"]


def test_volumes_that_are_newer_than_the_database_are_told(cluster: ClusterUnderTest) -> None:
    older = DatabaseCopy()
    generations.begin(Topology.load())
    older.put_back()
    finding = only(disks.volumes_are_ours)
    assert finding.level is Level.PROBLEM
    assert "newer database" in finding.found
    assert "manage.py adopt" in finding.remedy


def test_forgotten_and_strange_files_in_staging_are_told(cluster: ClusterUnderTest) -> None:
    assert only(disks.staging_is_in_order).level is Level.OK
    folder = cluster.configuration.staging_dir
    for name in (str(uuid4()), str(uuid4()), "notes.txt"):
        (folder / name).touch()
    forgotten = next(path for path in folder.iterdir() if path.name != "notes.txt")
    os.utime(forgotten, (0, 0))
    old, strange = disks.staging_is_in_order()
    assert old.found == "1 files in staging belong to no upload"
    assert "notes.txt" in strange.found
    shutil.rmtree(folder)
    assert only(disks.staging_is_in_order).level is Level.PROBLEM


# -- the user and passwords ----------------------------------------------------


def test_the_wrong_user_is_told(tmp_path: Path, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, storage_dir=tmp_path)
    assert only(passwords.user_is_the_owner).level is Level.OK
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(tmp_path, 10001, 10001)
    finding = only(passwords.user_is_the_owner)
    assert (finding.level, "10001" in finding.remedy) == (Level.PROBLEM, True)
    settings.OCC = dataclasses.replace(settings.OCC, storage_dir=tmp_path / "nowhere")
    assert "STORAGE_DIR" in only(passwords.user_is_the_owner).found


def test_default_passwords_and_secrets_are_told(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(passwords.passwords_are_not_the_default).level is Level.OK
    settings.SECRET_KEY = "not-yet-made"
    settings.REDIS_URL = "redis://redis:6379/0"
    settings.OCC = dataclasses.replace(settings.OCC, database_url="postgres://occ:occ@postgres/occ")
    monkeypatch.setitem(connection.settings_dict, "PASSWORD", "occ")
    monkeypatch.setitem(connection.settings_dict, "HOST", "postgres")
    key, database, hints = passwords.passwords_are_not_the_default()
    assert key.level is Level.PROBLEM
    assert "POSTGRES_PASSWORD" in database.remedy
    assert "requirepass" in hints.remedy


@pytest.mark.django_db
def test_administrators_with_well_known_passwords_are_told(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # The usual hasher is slow.
    users = get_user_model()._default_manager
    users.create_superuser("careful", "", "a long and quiet river")
    assert only(passwords.administrators_have_passwords_of_their_own).level is Level.OK
    users.create_superuser("ann", "", "ann")
    finding = only(passwords.administrators_have_passwords_of_their_own)
    assert finding.level is Level.PROBLEM
    assert finding.remedy == "run `manage.py changepassword ann`"
