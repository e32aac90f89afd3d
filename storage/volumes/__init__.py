from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.exceptions import ConfigurationError
from storage.volumes.base import GENERATIONS, MANY, Identity, Replica, Space, Trashed, Volume
from storage.volumes.directory import DirectoryVolume
from storage.volumes.filesystem import FilesystemVolume
from storage.volumes.lane import Lane
from storage.volumes.memory import MemoryVolume
from storage.volumes.packs import PackVolume

__all__ = [
    "GENERATIONS",
    "MANY",
    "DirectoryVolume",
    "FilesystemVolume",
    "Identity",
    "Lane",
    "MemoryVolume",
    "PackVolume",
    "Replica",
    "Space",
    "Trashed",
    "Volume",
    "open_volume",
]


def open_volume(url: str, expected: Identity | None = None, *, compress: bool = False) -> Volume:
    """The volume at a URL: ``file:///path`` has one file for each replica, ``pack:///path`` has many in one file.

    Args:
        url: the absolute URL.
        expected: the identity that must be found before a write, a listing or a removal.
        compress: True to store chunks with fewer bytes, where the volume can do that.

    Raises:
        ConfigurationError: the scheme is not known.
    """
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    # The URL file://srv/disk6 names the path /disk6 on the host srv, so it is refused.
    if parts.path and not parts.netloc:
        if parts.scheme == "file":
            return FilesystemVolume(path, expected)
        if parts.scheme == "pack":
            return PackVolume(path, expected, compress=compress)
    raise ConfigurationError(f"no volume backend for {url!r}")
