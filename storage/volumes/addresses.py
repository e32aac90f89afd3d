"""The URLs of volumes, and how a volume is opened.

The volume ``file:///path`` has one file for each replica; ``pack:///path`` has many replicas in one file. The URL of a
node may be relative, ``node_000`` or ``pack:node_000``. The volume is then in the directory of the nodes, and this
directory can be moved.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urljoin, urlsplit

from storage.exceptions import ConfigurationError
from storage.volumes.base import Identity, Volume
from storage.volumes.filesystem import FilesystemVolume
from storage.volumes.packs import PackVolume, can_punch_holes

Kind = Literal["file", "pack"]


def relative(node_id: str, kind: Kind) -> str:
    """The URL of a node's volume in the directory of the nodes."""
    return node_id if kind == "file" else f"{kind}:{node_id}"


def possible(kind: Kind, folder: Path) -> Kind:
    """The kind of volume that can be made in a folder: ``kind``, or ``file`` if packs cannot be on its file system."""
    return "file" if kind == "pack" and not can_punch_holes(folder) else kind


def is_relative(url: str) -> bool:
    return not urlsplit(url).path.startswith("/")


def absolute(url: str, folder: Path) -> str:
    """The absolute URL of a volume whose URL may be relative to ``folder``."""
    if not is_relative(url):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme or 'file'}:{urljoin(f'{folder.as_uri()}/', parts.path).removeprefix('file:')}"


def path_of(url: str) -> Path:
    """The path in the URL of a volume in a directory."""
    return Path(unquote(urlsplit(url).path))


def open_volume(
    url: str,
    expected: Identity | None = None,
    *,
    compress: bool = False,
    on_return: Callable[[], None] = lambda: None,
) -> Volume:
    """The volume at an absolute URL.

    Args:
        url: the URL.
        expected: the identity that must be found before a write, a listing or a removal.
        compress: True to store chunks with fewer bytes, where the volume can do that.
        on_return: is called before replicas come back that may have been removed, where the volume can notice that.

    Raises:
        ConfigurationError: the scheme is not known.
    """
    parts = urlsplit(url)
    # The URL file://srv/disk6 names the path /disk6 on the host srv, so it is refused.
    if parts.path.startswith("/") and not parts.netloc:
        if parts.scheme == "file":
            return FilesystemVolume(path_of(url), expected)
        if parts.scheme == "pack":
            return PackVolume(path_of(url), expected, compress=compress, on_return=on_return)
    raise ConfigurationError(f"no volume backend for {url!r}")
