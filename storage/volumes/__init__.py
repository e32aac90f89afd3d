from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.exceptions import ConfigurationError
from storage.volumes.base import GENERATIONS, MANY, Identity, Replica, Space, Trashed, Volume
from storage.volumes.filesystem import FilesystemVolume
from storage.volumes.lane import Lane
from storage.volumes.memory import MemoryVolume

__all__ = [
    "GENERATIONS",
    "MANY",
    "FilesystemVolume",
    "Identity",
    "Lane",
    "MemoryVolume",
    "Replica",
    "Space",
    "Trashed",
    "Volume",
    "open_volume",
]


def open_volume(url: str, expected: Identity | None = None) -> Volume:
    """The volume at a URL; ``file:`` is the only scheme so far.

    Raises:
        ConfigurationError: the scheme is not known.
    """
    parts = urlsplit(url)
    # The URL file://srv/disk6 names the path /disk6 on the host srv, so it is refused.
    if parts.scheme == "file" and parts.path and not parts.netloc:
        return FilesystemVolume(Path(unquote(parts.path)), expected)
    raise ConfigurationError(f"no volume backend for {url!r}")
