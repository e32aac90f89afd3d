"""The directory of backups: a volume with one copy of each chunk, and a directory for each backup.

A backup's directory gets its name when the backup is complete, and not before. Backups share the chunks: a chunk that
an earlier backup has copied is not copied again, even if that backup did not end.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from occsite.launch.files import sync_directory
from storage.exceptions import BackupError
from storage.volumes import FilesystemVolume, Identity

FORMAT = 1
DATABASE, LIST, SECRET, MISSING, DESCRIPTION = "database.dump", "chunks", "secret", "missing", "backup.json"
NODE_ID = "backup"  # The volume of the archive is the volume of no node. It has this id in the place of a node's.
_NAME = re.compile(r"\d{8}T\d{6}Z")
_DRAFT = "unfinished"
_LOCK, _VOLUME = "lock", "volume"
BATCH_CHUNKS, BATCH_BYTES = 64, 8 << 20
_TYPES = {each.__name__: each for each in (str, int, bool, dict, list)}


@dataclass(frozen=True)
class Place:
    """A node at the time of a backup, and the URL of its volume as the database has it."""

    node_id: str
    url: str


@dataclass(frozen=True)
class Description:
    """What a backup says about itself.

    Attributes:
        version: the version of OCC Storage.
        cluster: UUID of the cluster.
        taken_at: the time by PostgreSQL's clock, in ISO 8601.
        migrations: the last migration of each application.
        database_sha256: SHA-256 of the dump.
        database_bytes: the size of the dump.
        chunks: the number of chunks that files need.
        bytes: the size of the chunks that files need.
        has_chunks: False if the operator copies the volumes with other tools.
        missing: the number of chunks of which no node had a good copy.
        nodes: the nodes that were not retired.
    """

    version: str
    cluster: str
    taken_at: str
    migrations: dict[str, str]
    database_sha256: str
    database_bytes: int
    chunks: int
    bytes: int
    has_chunks: bool
    missing: int
    nodes: list[Place] = field(default_factory=list)


@dataclass(frozen=True)
class Backup:
    """A complete backup."""

    path: Path
    description: Description

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def database(self) -> Path:
        return self.path / DATABASE

    @property
    def secret(self) -> str | None:
        """The secret of the installation; None if the installation had none in STORAGE_DIR."""
        try:
            return (self.path / SECRET).read_text().strip()
        except FileNotFoundError:
            return None

    def batches(self) -> Iterator[dict[str, int]]:
        """The chunks of the backup in portions: chunk hash → size in bytes."""
        return batches(self.path / LIST)

    def check_database(self) -> None:
        """Make sure that the dump is the one that was written.

        Raises:
            BackupError: the bytes of the dump have changed.
        """
        if sha256(self.database) != self.description.database_sha256:
            raise BackupError(f"{self.database} is damaged: its bytes are not those that were written")


class Archive:
    """The directory of the backups of one cluster."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.volume = FilesystemVolume(self.root / _VOLUME)

    @contextmanager
    def opened(self, cluster: str) -> Iterator[None]:
        """Make the directory if necessary, and lock it for this process while the ``with`` block runs.

        Raises:
            BackupError: other files are in the directory, or another backup is being taken.
            ForeignVolume: the backups in the directory are those of another cluster.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = {path.name for path in self.root.iterdir()} - {"lost+found"}  # Even an empty disk may have it.
            if names and not names >= {_LOCK}:
                raise BackupError(f"{self.root} is neither empty nor a folder of backups")
            lock = (self.root / _LOCK).open("a")
        except OSError as error:
            raise BackupError(f"{self.root} cannot be used: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BackupError(f"another backup into {self.root} is being taken") from None
            self.volume.create(Identity(cluster, NODE_ID, cluster))
            self._discard_draft()
            yield

    def begin(self) -> Path:
        """Make the directory of a backup that is not complete yet."""
        draft = self.root / _DRAFT
        draft.mkdir(mode=0o700)
        return draft

    def complete(self, draft: Path, description: Description) -> Backup:
        """Make everything durable, and then give the backup its name."""
        text = json.dumps({"format": FORMAT, **asdict(description)}, indent=2) + "\n"
        (draft / DESCRIPTION).write_text(text)
        for path in draft.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(draft)
        path = self.root / re.sub(r"[-:]|\..*", "", description.taken_at).replace("+0000", "")[:15]
        path = path.with_name(path.name + "Z")
        draft.rename(path)
        sync_directory(self.root)
        return Backup(path, description)

    def names(self) -> list[str]:
        """The names of all complete backups, also of those with a damaged description, the oldest first.

        Raises:
            BackupError: the directory cannot be read.
        """
        try:
            return sorted(path.name for path in self.root.iterdir() if _NAME.fullmatch(path.name))
        except OSError as error:
            raise BackupError(f"{self.root} cannot be read: {error.strerror}") from error

    def find(self, name: str | None = None) -> Backup:
        """The backup of this name, or else the last backup. The descriptions of other backups are not read.

        If the last backup is damaged, no older one is taken in its place: the operator would restore older files
        unnoticed.

        Raises:
            BackupError: there is no such backup, or its description is damaged or of a later format.
        """
        names = [each for each in self.names() if name in (None, each)]
        if not names:
            raise BackupError(f"{self.root} holds no complete backup{f' {name}' if name else ''}")
        path = self.root / names[-1]
        try:
            return Backup(path, _description(path / DESCRIPTION))
        except BackupError as error:
            if name is None:
                raise BackupError(f"{error}. This backup is the last one; --backup NAME chooses another") from error
            raise

    def _discard_draft(self) -> None:
        shutil.rmtree(self.root / _DRAFT, ignore_errors=True)


def batches(listing: Path) -> Iterator[dict[str, int]]:
    """Read a list of chunks in portions: chunk hash → size in bytes."""
    batch: dict[str, int] = {}
    total = 0
    with listing.open() as file:
        for line in file:
            chunk_hash, size = line.split()
            if batch and (len(batch) == BATCH_CHUNKS or total + int(size) > BATCH_BYTES):
                yield batch
                batch, total = {}, 0
            batch[chunk_hash] = int(size)
            total += int(size)
    if batch:
        yield batch


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _description(path: Path) -> Description:
    try:
        read = json.loads(path.read_text())
        if not isinstance(read, dict):
            raise ValueError("it is no JSON object")
        if read["format"] != FORMAT:
            raise BackupError(f"{path} was written by a later version")
        read["nodes"] = [Place(**place) for place in read["nodes"]]
        return Description(**{each.name: _value(read, each.name, str(each.type)) for each in fields(Description)})
    except KeyError as error:
        raise BackupError(f"{path} cannot be read: it has no {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise BackupError(f"{path} cannot be read: {error}") from error


def _value(read: Mapping[str, Any], name: str, kind: str) -> Any:
    """A value of a description, which has the type that the field ``name`` is declared with."""
    value = read[name]
    if type(value) is not _TYPES[kind.partition("[")[0]]:
        raise ValueError(f"{name} is {value!r}")
    return value
