"""A volume in this process's memory, for tests: it keeps the contract of a volume, and needs no disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from threading import RLock

from storage.exceptions import ForeignVolume, ReplicaMissing, VolumeFull, VolumeOffline
from storage.volumes.base import Identity, Replica, Space, Trashed


class MemoryVolume:
    """A volume of at most ``capacity`` bytes. ``online = False`` makes every verb fail like an unmounted disk."""

    def __init__(self, name: str = "memory", capacity: int = 1 << 30, expected: Identity | None = None) -> None:
        self.name = name
        self.capacity = capacity
        self.expected = expected
        self.online = True
        self._identity: Identity | None = None
        self._replicas: dict[str, bytes] = {}
        self._trash: dict[Trashed, bytes] = {}
        self._quarantine: dict[tuple[str, str], bytes] = {}
        self._lock = RLock()

    def require_vacant(self, identity: Identity) -> None:
        self._require_online()
        if self._identity is not None and not self._identity.same_volume(identity):
            raise ForeignVolume(f"{self.name} belongs to another node or cluster")

    def create(self, identity: Identity) -> None:
        with self._lock:
            self.require_vacant(identity)
            self._identity = self._identity or identity

    def identity(self) -> Identity:
        self._require_online()
        if self._identity is None:
            raise ForeignVolume(f"{self.name} carries no identity")
        return self._identity

    def set_generations(self, generations: Sequence[str]) -> None:
        with self._lock:
            self._identity = self._checked().at(*generations)

    def keep_spare(self) -> None:
        self._checked()  # A removal takes no room in memory, so there is no spare.

    def space(self) -> Space:
        self._require_online()
        return Space(self.name, self.capacity - self._used(), self.capacity)

    def sizes(self, chunk_hashes: Sequence[str]) -> list[int | None]:
        self._checked()
        replicas = [self._replicas.get(chunk_hash) for chunk_hash in chunk_hashes]
        return [None if data is None else len(data) for data in replicas]

    def read(self, chunk_hash: str, *, uncached: bool = False) -> bytes:
        self._checked()
        data = self._replicas.get(chunk_hash)
        if data is None:
            raise ReplicaMissing(chunk_hash)
        return data

    def read_cached(self, chunk_hash: str) -> bytes | None:
        return self._replicas.get(chunk_hash) if self.online else None

    def rescue(self, chunk_hash: str) -> bytes:
        self._checked()
        with self._lock:
            for trashed, data in self._trash.items():
                if trashed.chunk_hash == chunk_hash:
                    return data
        raise ReplicaMissing(chunk_hash)

    def write(self, replicas: Mapping[str, bytes], *, keep_cached: Collection[str] = ()) -> None:
        self._checked()
        with self._lock:
            if self._used() + sum(map(len, replicas.values())) > self.capacity:
                raise VolumeFull(self.name)
            self._replicas.update((chunk_hash, bytes(data)) for chunk_hash, data in replicas.items())

    def settle(self, chunk_hash: str) -> None:
        self._checked()
        if chunk_hash not in self._replicas:
            raise VolumeOffline(chunk_hash)

    def replicas(self, prefix: str = "") -> Iterator[Replica]:
        self._checked()
        for chunk_hash, data in list(self._replicas.items()):
            if chunk_hash.startswith(prefix):
                yield Replica(chunk_hash, len(data), len(data))

    def leftovers(self, prefix: str = "") -> Iterator[str]:
        self._checked()
        yield from ()

    def discard(self, leftover: str) -> int:
        self._checked()
        return 0

    def trash(self, chunk_hash: str, token: str) -> bool:
        self._checked()
        with self._lock:
            data = self._replicas.pop(chunk_hash, None)
            if data is not None:
                self._trash[Trashed(chunk_hash, token)] = data
            return data is not None

    def trashed(self) -> Iterator[Trashed]:
        self._checked()
        yield from list(self._trash)

    def restore(self, trashed: Trashed) -> bool:
        self._checked()
        with self._lock:
            data = self._trash.pop(trashed, None)
            if data is not None:
                self._replicas[trashed.chunk_hash] = data
            return data is not None

    def purge(self, trashed: Trashed) -> int:
        self._checked()
        with self._lock:
            return len(self._trash.pop(trashed, b""))

    def quarantine(self, chunk_hash: str, token: str) -> bytes | None:
        self._checked()
        with self._lock:
            data = self._replicas.pop(chunk_hash, None)
            if data is not None:
                self._quarantine[chunk_hash, token] = data
            return data

    def acquit(self, chunk_hash: str, token: str) -> None:
        self._checked()
        with self._lock:
            data = self._quarantine.pop((chunk_hash, token), None)
            if data is not None:
                self._replicas[chunk_hash] = data

    def _used(self) -> int:
        with self._lock:
            return sum(map(len, (*self._replicas.values(), *self._trash.values(), *self._quarantine.values())))

    def _require_online(self) -> None:
        if not self.online:
            raise VolumeOffline(self.name)

    def _checked(self) -> Identity:
        identity = self.identity()
        if self.expected is not None and not identity.same_volume(self.expected):
            raise ForeignVolume(f"{self.name} carries another identity")
        return identity
