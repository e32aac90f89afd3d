"""File systems that others have written, which show a bucket of a running service as a directory."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.clients.conftest import Service, equal
from tests.clients.families import installed
from tests.support.system import wait_until

pytestmark = pytest.mark.clients
LIMIT = 60.0  # Seconds that a mount may take to come or to go.
Folder = Callable[[int], Path]
Mount = Callable[[], AbstractContextManager[Path]]


@contextmanager
def mounted(argv: list[str | Path], folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Run a program in the foreground that mounts ``folder``, and unmount the folder in the end."""
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("/dev/fuse is not there, or may not be opened")
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_until(lambda: os.path.ismount(folder) or process.poll() is not None, LIMIT)
        assert process.poll() is None, process.communicate()[0]
        yield folder
    finally:
        subprocess.run([installed("fusermount", "fuse"), "-u", folder], check=False)
        process.wait(LIMIT)


def use(mount: Mount, root: Path, files: Path, large: Path, service: Service, bucket: str) -> None:
    """Use a mounted bucket as people use a directory, and look at the bucket through S3 in between.

    Args:
        mount: returns a context in which the bucket is mounted at ``root``.
        root: the directory at which the bucket is mounted.
        files: a directory to copy.
        large: a file to copy.
        service: the running service.
        bucket: the name of the bucket.
    """
    with mount():
        shutil.copytree(files, root / "files")
        shutil.copyfile(large, root / "large")
        assert equal(files, root / "files")
    assert b"".join(service.client().get_object(Bucket=bucket, Key="large")["Body"]) == large.read_bytes()
    with mount():
        assert equal(files, root / "files")
        assert filecmp.cmp(large, root / "large", shallow=False)
        (root / "files/a b").rename(root / "files/renamed")
        with (root / "files/a+b").open("a") as appended:
            appended.write(", and more")
        (root / "files/100%").unlink()
        (root / "folder").mkdir()
        with (root / "large").open("rb") as read:
            read.seek(-5, os.SEEK_END)
            assert read.read() == large.read_bytes()[-5:]
    client = service.client()
    assert client.get_object(Bucket=bucket, Key="files/renamed")["Body"].read() == b"a b"
    assert client.get_object(Bucket=bucket, Key="files/a+b")["Body"].read() == b"a+b, and more"
    names = {entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert not names & {"files/a b", "files/100%"}


@pytest.mark.parametrize("version", ["sigv4", "sigv2"])
def test_s3fs_fuse(service: Service, folder: Folder, large: Path, tmp_path: Path, version: str) -> None:
    files, bucket, root = folder(20), service.bucket(), tmp_path / "mounted"
    password = tmp_path / "password"
    password.write_text(f"{service.key}:{service.secret}\n")
    password.chmod(0o600)
    argv: list[str | Path] = [installed("s3fs", "s3fs"), bucket, root, "-f", "-o", f"passwd_file={password}"]
    argv += ["-o", f"url={service.endpoint}", "-o", "use_path_request_style", "-o", "endpoint=occ", "-o", version]
    # s3fs prefers keys of the environment to the file, and takes them for keys of AWS with a region.
    environment = {name: value for name, value in service.environment.items() if not name.startswith("AWS_")}
    use(lambda: mounted(argv, root, environment), root, files, large, service, bucket)


def test_rclone_mount(service: Service, folder: Folder, large: Path, tmp_path: Path) -> None:
    files, bucket, root = folder(20), service.bucket(), tmp_path / "mounted"
    environment = service.environment | service.for_rclone(tmp_path)
    argv: list[str | Path] = [installed("rclone", "rclone"), "mount", f"occ:{bucket}", root]
    argv += ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s"]
    use(lambda: mounted(argv, root, environment), root, files, large, service, bucket)
