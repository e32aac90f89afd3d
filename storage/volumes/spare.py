"""Room that a volume in a directory sets aside, so that a full file system can still remove something.

A rename into another directory may have to find a block for the longer directory. The spare is a file that holds some
blocks and one inode; when a rename finds none, the spare goes and the rename is tried again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from storage.volumes.descriptors import open_at, sync_directory, write_all

T = TypeVar("T")

NAME = "spare"
SIZE = 256 << 10  # bytes: directory blocks for the names of a whole reclaim pass
FULL = (errno.ENOSPC, errno.EDQUOT)

_NEW_OR_OLD = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def keep(root: int) -> None:
    """Make the spare unless it is there in its whole size.

    Raises:
        OSError: there is no room for it; none of it is left.
    """
    with suppress(FileNotFoundError):
        if os.stat(NAME, dir_fd=root, follow_symlinks=False).st_size >= SIZE:
            return
    try:
        with open_at(root, NAME, _NEW_OR_OLD) as file:
            # Random bytes take real blocks on every file system. Zeros may be compressed, or left out.
            write_all(file, os.urandom(SIZE))
            os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.unlink(NAME, dir_fd=root)
        raise


def with_spare(root: int, act: Callable[[], T]) -> T:
    """Do something that frees room, and do it once more without the spare if the file system is full.

    Args:
        root: the volume's directory.
        act: what to do; when it fails it has changed nothing.

    Raises:
        OSError: what it raised, or raised again.
    """
    try:
        return act()
    except OSError as error:
        if error.errno not in FULL:
            raise
    _release(root)
    return act()


def _release(root: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(NAME, dir_fd=root)
        # A file system with a journal gives the blocks away again only when it has committed that they are free.
        sync_directory(root, ".")
