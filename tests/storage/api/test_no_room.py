"""When an upload cannot be taken, the client is told which part of the system lacks which resource."""

from __future__ import annotations

import os
import shutil

import pytest

from storage.cluster import admission
from storage.models import File, Upload
from storage.volumes import FilesystemVolume, Space
from tests.support.api import Send
from tests.support.cluster import ClusterUnderTest


@pytest.fixture(autouse=True)
def forget_the_last_look(cluster: ClusterUnderTest) -> None:
    admission._room.forget()


@pytest.mark.parametrize("trouble", ["missing", "not writable"])
def test_staging_that_cannot_be_used_is_a_503_in_words(
    workers: ClusterUnderTest, send: Send, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    staging = workers.configuration.staging_dir
    if trouble == "missing":
        shutil.rmtree(staging)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    answer = send(b"nowhere to wait")
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert answer.json()["detail"].startswith("the staging folder cannot be")
    assert str(staging) not in answer.json()["detail"]
    assert not Upload.objects.exists()
    assert not File.objects.exists()


def test_nodes_without_inodes_are_a_507_that_says_so(
    workers: ClusterUnderTest, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FilesystemVolume, "space", lambda self: Space("disk", 1 << 40, 1 << 40, free_files=100))
    answer = send(b"one inode too many")
    assert (answer.status_code, answer.json()["detail"]) == (507, "too few nodes have free inodes for it")
    assert not Upload.objects.exists()
