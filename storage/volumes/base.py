"""The protocol of a volume: a few verbs. Every implementation passes ``tests/contract``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

HEADROOM = 256 << 20  # This many bytes stay free on every file system, for PostgreSQL and for uploads under way.
HEADROOM_FILES = 4096  # Room for this many files (inodes) also stays free on every file system.

GENERATIONS = 4
"""A volume carries the generations of this many databases."""

MANY = "f" * 32
"""A token that no database knows. It stands for generations that the identity file has no room for."""

Lack = Literal["", "bytes", "files"]


@dataclass(frozen=True)
class Identity:
    """The node and cluster that a volume belongs to. Only the generations change after the node was created.

    Attributes:
        cluster: UUID of the cluster.
        node_id: such as ``node_000``.
        node: UUID of the node; a node whose disk is replaced gets a new UUID.
        generations: tokens of 32 hex digits: the last generation of each database that has written here (RACES 12).
            There is more than one token only if another copy of the database has been in use.
    """

    cluster: str
    node_id: str
    node: str
    generations: tuple[str, ...] = ()

    def at(self, *generations: str) -> Identity:
        return replace(self, generations=generations)

    def same_volume(self, other: Identity) -> bool:
        """Tell whether both identities name the same volume; generations are not compared."""
        return self.at() == other.at()


@dataclass(frozen=True)
class Space:
    """Room on the file system below a volume; volumes with the same ``device`` share this room.

    Attributes:
        device: name of the file system.
        free: bytes that this process may still take.
        total: size of the file system in bytes.
        writable: false if the file system, or the rights of this process, allow no changes.
        free_files: number of files that can still be made; None if the file system sets no limit.
    """

    device: str
    free: int
    total: int
    writable: bool = True
    free_files: int | None = None

    @classmethod
    def of(cls, statistics: os.statvfs_result, device: str, *, writable: bool) -> Space:
        """Make a space from the result of statvfs(3)."""
        free_files = statistics.f_favail if statistics.f_files else None
        return cls(
            device,
            statistics.f_bavail * statistics.f_frsize,
            statistics.f_blocks * statistics.f_frsize,
            writable,
            free_files,
        )

    @property
    def lack(self) -> Lack:
        """The resource that is used up except for the headroom: ``"bytes"``, ``"files"``, or ``""`` for none."""
        return self.lacks(1, 1)  # A file system is full if one more file of one byte does not fit.

    @property
    def is_full(self) -> bool:
        """True if nothing more may be stored here."""
        return bool(self.lack)

    def lacks(self, size: int = 0, files: int = 0) -> Lack:
        """The resource that would be short after ``size`` more bytes and ``files`` more files; ``""`` if none is.

        The headroom must stay free.
        """
        if self.free - size < HEADROOM:
            return "bytes"
        if self.free_files is not None and self.free_files - files < HEADROOM_FILES:
            return "files"
        return ""

    def less(self, size: int, files: int) -> Space:
        """The room that is left after ``size`` more bytes and ``files`` more files."""
        free_files = None if self.free_files is None else self.free_files - files
        return replace(self, free=self.free - size, free_files=free_files)


@dataclass(frozen=True)
class Replica:
    """One listed copy of a chunk.

    Attributes:
        chunk_hash: the chunk.
        size: the number of bytes that a reader gets.
        stored: the number of bytes that the copy takes, which are fewer if it is compressed.
    """

    chunk_hash: str
    size: int
    stored: int


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

    def require_vacant(self, identity: Identity) -> None:
        """Raise what ``create`` would raise, as far as that can be known without changing anything.

        Raises:
            ForeignVolume: other files, or another volume, are there.
            VolumeOffline: the place cannot be written to.
        """

    def create(self, identity: Identity) -> None:
        """Make an empty volume that carries the identity; a volume that carries it already is left alone.

        Raises:
            ForeignVolume: other files, or another volume, are there.
        """

    def identity(self) -> Identity:
        """The identity that the volume carries, read from the medium and not from a cache, as far as possible.

        Raises:
            ForeignVolume: the volume carries no identity.
        """

    def set_generations(self, generations: Sequence[str]) -> None:
        """Replace the generations that the volume carries, durably. The generations can be replaced even on a full
        volume.

        Args:
            generations: tokens of 32 hex digits, at most ``GENERATIONS``.
        """

    def keep_spare(self) -> None:
        """Set a little room aside: a removal on a full volume can take it.

        A spare that is there already is left alone. A removal that takes the spare leaves the volume without one.

        Raises:
            VolumeFull: there is no room for the spare.
            VolumeReadOnly: the volume can only be read.
        """

    def space(self) -> Space:
        """The room on the file system below the volume."""

    def sizes(self, chunk_hashes: Sequence[str]) -> list[int | None]:
        """The size of each replica in bytes; None for a replica that is not there, or only in trash or quarantine."""

    def read(self, chunk_hash: str, *, uncached: bool = False) -> bytes:
        """The replica's bytes, unverified.

        Args:
            chunk_hash: the chunk.
            uncached: True to read from the medium and not from a cache, as far as possible.

        Raises:
            ReplicaMissing: the volume holds no replica of the chunk.
        """

    def read_cached(self, chunk_hash: str) -> bytes | None:
        """The replica's bytes, unverified, if they can be read without waiting for a medium; otherwise None.

        This call never waits and raises nothing. If the result is None, there may be a replica nevertheless.
        """

    def rescue(self, chunk_hash: str) -> bytes:
        """The bytes of a replica that lies in the trash, unverified. A reader calls this verb last.

        Raises:
            ReplicaMissing: the trash has no replica of the chunk.
        """

    def write(self, replicas: Mapping[str, bytes], *, keep_cached: Collection[str] = ()) -> None:
        """Store replicas. When this verb returns, all the replicas are whole and durable.

        When this verb raises an error, the volume has no part of a replica, but may have whole replicas that are not
        durable.

        Args:
            replicas: chunk hash → bytes.
            keep_cached: the hashes of the chunks that are likely to be read from this volume soon.

        Raises:
            VolumeFull: no space is left.
            VolumeReadOnly: the volume can only be read.
        """

    def settle(self, chunk_hash: str) -> None:
        """Make a replica that is already there durable, so that a caller can rely on it (RACES 3)."""

    def replicas(self, prefix: str = "") -> Iterator[Replica]:
        """Every replica whose hash starts with ``prefix``, which is hex digits; the order is undefined."""

    def leftovers(self, prefix: str = "") -> Iterator[str]:
        """The names of unfinished files, from writes that are under way and from writes whose process died.

        Only files for chunks with ``prefix`` are named, as far as the volume knows which chunk an unfinished file is
        for.
        """

    def discard(self, leftover: str) -> int:
        """Remove an unfinished file; returns the bytes freed. If the file is still being written, the write fails."""

    def trash(self, chunk_hash: str, token: str) -> bool:
        """Rename the replica into the trash, durably, under a unique token; false if there is no replica.

        The verb works even on a full volume, as long as the volume has its spare.
        """

    def trashed(self) -> Iterator[Trashed]:
        """The replicas in the trash."""

    def restore(self, trashed: Trashed) -> bool:
        """Rename a trashed replica back, durably; false if it is no longer in the trash."""

    def purge(self, trashed: Trashed) -> int:
        """Unlink a trashed replica; returns the bytes freed."""

    def quarantine(self, chunk_hash: str, token: str) -> bytes | None:
        """Rename a suspect replica into the quarantine and return its bytes; None if there is no such replica."""

    def acquit(self, chunk_hash: str, token: str) -> None:
        """Rename a replica back from the quarantine after its bytes were found to be good."""
