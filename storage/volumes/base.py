"""What a volume is: a few verbs. Every implementation passes ``tests/contract``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True)
class Identity:
    """Whose volume it is; written once when the node is created, apart from the generation.

    Attributes:
        cluster: UUID of the cluster.
        node_id: such as ``node_000``.
        node: UUID of the node; replacing a disk draws a new one.
        generation: the reclaim pass that was here last (RACES 12).
    """

    cluster: str
    node_id: str
    node: str
    generation: int = 0

    def at(self, generation: int) -> Identity:
        return replace(self, generation=generation)

    def same_volume(self, other: Identity) -> bool:
        """Whether both name one volume, whatever the generation."""
        return self.at(0) == other.at(0)


@dataclass(frozen=True)
class Space:
    """Room on the file system below a volume, in bytes; volumes with one ``device`` share it.

    ``writable`` is false when the file system, or who owns it, allows no changes.
    """

    device: str
    free: int
    total: int
    writable: bool = True


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
    """A node's storage backend. Thread-safe; every verb may raise ``VolumeOffline``.

    Bytes are named by their SHA-256 in hex (``chunk_hash``); a volume stores and returns them, and judges nothing.
    """

    def create(self, identity: Identity) -> None:
        """Make an empty volume that carries the identity; a volume that carries it already is left alone.

        Raises:
            ForeignVolume: something else lies there.
        """

    def identity(self) -> Identity:
        """The identity that the volume carries.

        Raises:
            ForeignVolume: there is none.
        """

    def set_generation(self, generation: int) -> None:
        """Record, durably, that a reclaim pass of this generation is about to work here."""

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
        """Rename the replica into the trash, durably, under a unique token; false when there is none."""

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
