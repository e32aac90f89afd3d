"""What a volume is: a few verbs. Every implementation passes ``tests/contract``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

HEADROOM = 256 << 20  # bytes that stay free on every file system, for PostgreSQL and for uploads under way
HEADROOM_FILES = 4096  # files that can still be made on every file system, for the same

GENERATIONS = 4
"""A volume carries the generations of this many databases."""

MANY = "f" * 32
"""Stands for generations that a volume has no room for; no database knows it."""

Lack = Literal["", "bytes", "files"]


@dataclass(frozen=True)
class Identity:
    """Whose volume it is; written once when the node is created, apart from the generations.

    Attributes:
        cluster: UUID of the cluster.
        node_id: such as ``node_000``.
        node: UUID of the node; replacing a disk draws a new one.
        generations: tokens of 32 hex digits: the last generation of each database that has written here (RACES 12).
            There is one, unless another copy of the database has been in use.
    """

    cluster: str
    node_id: str
    node: str
    generations: tuple[str, ...] = ()

    def at(self, *generations: str) -> Identity:
        return replace(self, generations=generations)

    def same_volume(self, other: Identity) -> bool:
        """Whether both name one volume, whatever the generations."""
        return self.at() == other.at()


@dataclass(frozen=True)
class Space:
    """Room on the file system below a volume; volumes with one ``device`` share it.

    Attributes:
        device: names the file system.
        free: bytes that this process may still take.
        total: bytes.
        writable: false when the file system, or the rights of this process, allow no changes.
        free_files: how many files can still be made; None when the file system sets no limit.
    """

    device: str
    free: int
    total: int
    writable: bool = True
    free_files: int | None = None

    @classmethod
    def of(cls, found: os.statvfs_result, device: str, *, writable: bool) -> Space:
        """What statvfs(3) has found."""
        free_files = found.f_favail if found.f_files else None
        return cls(device, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, writable, free_files)

    @property
    def lack(self) -> Lack:
        """What is used up but for the headroom: ``"bytes"``, ``"files"`` or nothing."""
        return self.lacks(1, 1)  # What takes not even one more byte in one more file is full.

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be stored here."""
        return bool(self.lack)

    def lacks(self, size: int = 0, files: int = 0) -> Lack:
        """What there is too little of for so many more bytes and files, with the headroom left over."""
        if self.free - size < HEADROOM:
            return "bytes"
        if self.free_files is not None and self.free_files - files < HEADROOM_FILES:
            return "files"
        return ""

    def less(self, size: int, files: int) -> Space:
        """The room that is left after so many more bytes and files."""
        free_files = None if self.free_files is None else self.free_files - files
        return replace(self, free=self.free - size, free_files=free_files)


@dataclass(frozen=True)
class Replica:
    """One listed copy of a chunk."""

    chunk_hash: str
    size: int


@dataclass(frozen=True)
class Trashed:
    """A removed replica that has not been purged yet."""

    chunk_hash: str
    token: str

    @property
    def name(self) -> str:
        return f"{self.chunk_hash}~{self.token}"


class Volume(Protocol):
    """A node's storage backend. Thread-safe; every verb may raise ``VolumeOffline`` or ``VolumeUnasked``.

    Bytes are named by their SHA-256 in hex (``chunk_hash``); a volume stores and returns them, and judges nothing.
    """

    def create(self, identity: Identity) -> None:
        """Make an empty volume that carries the identity; a volume that carries it already is left alone.

        Raises:
            ForeignVolume: something else lies there.
        """

    def identity(self) -> Identity:
        """The identity that the volume carries, read from the medium as far as that can be done.

        Raises:
            ForeignVolume: there is none.
        """

    def set_generations(self, generations: Sequence[str]) -> None:
        """Put these generations in the place of those that the volume carries, durably; a full volume can do it.

        Args:
            generations: tokens of 32 hex digits, at most ``GENERATIONS``.
        """

    def keep_spare(self) -> None:
        """Set a little room aside, from which removals are served when the volume is full.

        A spare that is there already is left alone; a removal that used it up leaves none.

        Raises:
            VolumeFull: there is no room for it.
            VolumeReadOnly: the volume can only be read.
        """

    def space(self) -> Space:
        """Room below the volume."""

    def sizes(self, chunk_hashes: Sequence[str]) -> list[int | None]:
        """Bytes of each replica, None for those that are not there. Trash and quarantine do not count."""

    def read(self, chunk_hash: str, *, uncached: bool = False) -> bytes:
        """The replica's bytes, unverified; ``uncached`` from the medium, as far as that can be had.

        Raises:
            ReplicaMissing: there is none.
        """

    def read_cached(self, chunk_hash: str) -> bytes | None:
        """The replica's bytes, unverified, if they can be had without waiting for any medium; otherwise None.

        Never waits and raises nothing: None says neither that there is a replica nor that there is none.
        """

    def rescue(self, chunk_hash: str) -> bytes:
        """The bytes of a replica that lies in the trash, unverified: the last resort of a read.

        Raises:
            ReplicaMissing: there is none.
        """

    def write(self, replicas: Mapping[str, bytes], *, keep_cached: Collection[str] = ()) -> None:
        """Store replicas, given by their hashes: all of them whole and durable when this returns.

        Those in ``keep_cached`` are likely to be read from here soon.

        When it raises, none is there in part, and those that are there whole may not be durable.

        Raises:
            VolumeFull: no space is left.
            VolumeReadOnly: it can only be read.
        """

    def settle(self, chunk_hash: str) -> None:
        """Make the name of a replica that is already there durable, so that it can be counted on (RACES 3)."""

    def replicas(self, prefix: str = "") -> Iterator[Replica]:
        """Every replica whose hash starts with the prefix of hex digits, in no order."""

    def leftovers(self, prefix: str = "") -> Iterator[str]:
        """Names of what writes have left unfinished: those under way, and those whose process died.

        ``prefix`` restricts them as it does ``replicas``, as far as it can be told whose they are.
        """

    def discard(self, leftover: str) -> int:
        """Remove what an unfinished write left; returns the bytes freed. If the write still goes on, it fails."""

    def trash(self, chunk_hash: str, token: str) -> bool:
        """Rename the replica into the trash, durably, under a unique token; false when there is none.

        A full volume can do it, as long as it has its spare.
        """

    def trashed(self) -> Iterator[Trashed]:
        """What lies in the trash."""

    def restore(self, trashed: Trashed) -> bool:
        """Rename a trashed replica back, durably; false when it is no longer in the trash."""

    def purge(self, trashed: Trashed) -> int:
        """Unlink a trashed replica; returns the bytes freed."""

    def quarantine(self, chunk_hash: str, token: str) -> bytes | None:
        """Rename a suspect replica out of the way and return the renamed bytes; None when there is none."""

    def acquit(self, chunk_hash: str, token: str) -> None:
        """Rename a replica back that quarantine found to be good."""
