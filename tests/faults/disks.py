"""Faults of disks in a running installation: bytes are damaged, file systems fill up, disks hang or are unmounted."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import Installation
from tests.support.installation import copies as paths_of
from tests.support.packs import PackedCopy, copies_in

# The size of a disk in bytes. This size exceeds the 256 MiB that must stay free (HEADROOM): a node with less free space
# counts as full and gets no replicas. A file system in memory takes memory only for the bytes that are written to it.
ROOMY = 400 << 20


# A copy of a chunk, in a file of its own or in a pack.
Copy = Path | PackedCopy


def nodes_dir(installation: Installation) -> Path:
    return Path(installation.system.storage_dir) / "nodes"


def copies(installation: Installation, chunk: bytes) -> dict[str, Any]:
    """Look up the copies of a chunk in the directories of the nodes: node id → path."""
    found = {node_of(copy): copy for copy in paths_of(installation, chunk)}
    return {node_id: path for node_id, path in found.items() if node_id.startswith("node_")}


def all_copies(installation: Installation) -> dict[str, list[Copy]]:
    """Map each chunk hash to the chunk's copies in the directories of the nodes."""
    found: dict[str, list[Copy]] = defaultdict(list)
    for folder in sorted(nodes_dir(installation).glob("node_*")):
        is_packed = (folder / "packs").exists()
        for name in sorted(replicas(folder)):
            found[name].append(PackedCopy(folder, name) if is_packed else folder / "chunks" / name[:2] / name)
    return dict(found)


def node_of(copy: Copy) -> str:
    """Return the node in whose directory a copy is."""
    return (copy.root if isinstance(copy, PackedCopy) else copy.parents[2]).name


def put_back(copy: Copy, data: bytes) -> None:
    """Make a missing copy in one step: no process sees a part of it."""
    if isinstance(copy, PackedCopy):
        copy.write_bytes(data)
    else:
        copy.with_name("by-hand").write_bytes(data)
        copy.with_name("by-hand").rename(copy)


def require_files(installation: Installation, why: str) -> None:
    """Skip a scenario that needs nodes with one file for each copy.

    Args:
        installation: the installation.
        why: the reason that is printed.
    """
    if any(nodes_dir(installation).glob("node_*/packs")):
        pytest.skip(f"not for nodes of packs: {why}")


def replicas(folder: Path) -> set[str]:
    """Return the names of the replicas in one node's directory."""
    if (folder / "packs").exists():
        return set(copies_in(folder))
    return {path.name for path in folder.glob("chunks/??/*") if not path.name.startswith(".")}


def quarantined(installation: Installation) -> list[str]:
    """Return the names of all copies that were judged bad and moved into quarantine."""
    packed = [name for packs in nodes_dir(installation).glob("node_*/packs") for name in copies_in(packs.parent, 2)]
    return sorted([*(path.name for path in nodes_dir(installation).glob("node_*/quarantine/*")), *packed])


def leftovers(installation: Installation) -> list[Path]:
    """Return the temporary files that failed writes have left on the volumes."""
    return list(nodes_dir(installation).rglob(".tmp-*"))


# -- damage ----------------------------------------------------------------


def flip(path: Copy) -> None:
    """Flip one bit in the middle of a copy."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    _overwrite(path, bytes(data))


def truncate(path: Copy) -> None:
    data = path.read_bytes()
    _overwrite(path, data[: len(data) // 2])


def empty(path: Copy) -> None:
    _overwrite(path, b"")


def _overwrite(path: Copy, data: bytes) -> None:
    if isinstance(path, PackedCopy):
        path.write_bytes(data)
        return
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


DAMAGES: Mapping[str, Callable[[Any], None]] = {
    "flipped": flip,
    "truncated": truncate,
    "emptied": empty,
    "removed": lambda path: path.unlink(),
}


# -- disks that are gone, exchanged, or hang -------------------------------


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Replace a node's directory by an empty one during the ``with`` block, as if no disk were mounted."""
    away = folder.with_name(f"away-{folder.name}")
    folder.rename(away)
    folder.mkdir()
    try:
        yield
        assert list(folder.iterdir()) == [], "something was written to a disk that is not there"
    finally:
        shutil.rmtree(folder)
        away.rename(folder)


@contextmanager
def exchanged(one: Path, other: Path) -> Iterator[None]:
    """Exchange the directories of two nodes during the ``with`` block."""
    _exchange(one, other)
    try:
        yield
    finally:
        _exchange(one, other)


def _exchange(one: Path, other: Path) -> None:
    between = one.with_name(f"away-{one.name}")
    one.rename(between)
    other.rename(one)
    between.rename(other)


@contextmanager
def hanging(path: Path) -> Iterator[None]:
    """Replace a file by a pipe during the ``with`` block. A reader then hangs, as on a disk that does not answer."""
    volume = next(parent for parent in path.parents if parent.name.startswith("node_"))
    away, pipe = volume / f"hung-{path.name}", volume / f"pipe-{path.name}"
    os.link(path, away)
    os.mkfifo(pipe)
    pipe.rename(path)
    try:
        yield
    finally:
        # The file is put back before the waiting reader goes on. From the pipe the reader gets an end of file and no
        # bytes.
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        away.rename(path)
        os.close(descriptor)


# -- disks of their own ----------------------------------------------------


class CannotMount(Exception):
    """This process cannot mount file systems. The message of the exception says why."""


class Disk:
    """A file system of its own for one node, in memory or in an image file."""

    def __init__(self, folder: Path, backing: Path) -> None:
        """
        Args:
            folder: the node's directory, at which the disk appears.
            backing: a second mount point, at which the disk stays mounted while it is unmounted from ``folder``.
        """
        self.folder = folder
        self.backing = backing

    @contextmanager
    def full(self) -> Iterator[None]:
        """Shrink the file system during the ``with`` block, so that it has no room for another page."""
        found = os.statvfs(self.backing)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        mount("-o", f"remount,size={max(used, found.f_frsize)}", str(self.backing))
        try:
            yield
        finally:
            mount("-o", f"remount,size={ROOMY}", str(self.backing))

    @contextmanager
    def used_up(self, what: str) -> Iterator[None]:
        """Use up every free block, or every free inode, during the ``with`` block, as another program could.

        Args:
            what: ``"blocks"`` or ``"inodes"``.
        """
        foreign = self.backing / "foreign"
        foreign.mkdir()
        try:
            _take_blocks(foreign / "blocks") if what == "blocks" else _take_inodes(foreign)
            yield
        finally:
            shutil.rmtree(foreign)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        mount("-o", "remount,bind,ro", str(self.folder))
        try:
            yield
        finally:
            mount("-o", "remount,bind,rw", str(self.folder))

    @contextmanager
    def loose(self) -> Iterator[None]:
        """Unmount the disk from ``folder`` during the ``with`` block, so that the empty directory below the mount
        appears.
        """
        unmount(self.folder)
        try:
            yield
            assert list(self.folder.iterdir()) == [], "something was written to a disk that is not there"
        finally:
            mount("--bind", str(self.backing), str(self.folder))


@contextmanager
def all_of(conditions: Iterable[AbstractContextManager[None]]) -> Iterator[None]:
    """Enter all context managers in ``conditions``, such as one per disk, for the ``with`` block."""
    with ExitStack() as entered:
        for condition in conditions:
            entered.enter_context(condition)
        yield


@contextmanager
def own_disks(installation: Installation, backings: Path) -> Iterator[dict[str, Disk]]:
    """Move every node of a running installation to a disk of its own. At the end the disks are unmounted.

    Raises:
        CannotMount: this process is not allowed to mount file systems.
    """
    with ExitStack() as mounted:
        disks = {}
        for folder in sorted(nodes_dir(installation).glob("node_*")):
            backing = backings / folder.name
            disks[folder.name] = Disk(folder, backing)
            mounted.enter_context(_moved(folder, backing, "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs"))
        yield disks


@contextmanager
def limited_disks(
    installation: Installation, backings: Path, kinds: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, Disk]]:
    """Move nodes of a running installation to file systems of limited size, which are unmounted in the end.

    Args:
        installation: the installation that has the nodes.
        backings: a directory for the mount points.
        kinds: node id → a file system and its options, such as ``("tmpfs", "nr_inodes=5000")`` for one in memory and
            ``("ext4", "-N", "8192")`` for one that ``mkfs.ext4`` makes.

    Raises:
        CannotMount: this process is not allowed to mount file systems.
    """
    with ExitStack() as mounted:
        disks = {}
        for node_id, (kind, *options) in kinds.items():
            backing = backings / node_id
            what = ["-t", "tmpfs", "-o", ",".join([f"size={ROOMY}", *options]), "tmpfs"]
            if kind == "ext4":
                image = backing.with_suffix(".img")
                with image.open("wb") as file:
                    file.truncate(ROOMY)
                # Option -m 0 sets no blocks aside for root: root runs these tests and could use them.
                _checked("mkfs.ext4", "-q", "-F", "-m", "0", *options, str(image))
                what = ["-o", "loop", str(image)]
            disks[node_id] = Disk(nodes_dir(installation) / node_id, backing)
            mounted.enter_context(_moved(disks[node_id].folder, backing, *what))
        yield disks


@contextmanager
def freezable(folder: Path, backing: Path) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Move a node of a running installation to an ext4 file system of its own, which is unmounted in the end.

    Yields:
        A context manager that freezes the file system. During its ``with`` block, reads are served, and a thread that
        writes waits and cannot be killed.

    Raises:
        CannotMount: this process is not allowed to mount file systems.
    """
    image = backing.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(2 * ROOMY)
    _checked("mkfs.ext4", "-q", "-F", str(image))

    @contextmanager
    def frozen() -> Iterator[None]:
        _checked("fsfreeze", "--freeze", str(backing))
        try:
            yield
        finally:
            _checked("fsfreeze", "--unfreeze", str(backing))

    with _moved(folder, backing, "-o", "loop", str(image)):
        yield frozen


@contextmanager
def _moved(folder: Path, backing: Path, *what: str) -> Iterator[None]:
    """Mount a file system at ``backing`` and at ``folder``, and move the files of ``folder`` to it.

    The directory below the mount at ``folder`` is left empty. ``what`` are the arguments of ``mount``.
    """
    if os.geteuid() != 0:
        raise CannotMount("only root may mount file systems")
    backing.mkdir()
    with ExitStack() as mounted:
        mount(*what, str(backing))
        mounted.callback(unmount, backing)
        shutil.copytree(folder, backing, dirs_exist_ok=True)
        shutil.rmtree(folder)
        folder.mkdir()
        mount("--bind", str(backing), str(folder))
        mounted.callback(unmount, folder)
        yield


def _take_blocks(path: Path) -> None:
    """Allocate every free block to one file. The blocks are not written to, so the image of the disk stays small."""
    with path.open("wb") as file:
        size, step = 0, 64 << 20
        while step >= 512:
            try:
                os.posix_fallocate(file.fileno(), size, step)
                size += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2


def _take_inodes(folder: Path) -> None:
    for number in count():
        try:
            (folder / str(number)).touch()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


def mount(*arguments: str) -> None:
    _checked("mount", *arguments)


def _checked(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise CannotMount(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise CannotMount(f"{' '.join(command)}: {error.stderr.strip()}") from None


def unmount(folder: Path) -> None:
    while folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
