"""Room that a volume in a directory sets aside, so that a full file system can still remove something.

A rename into another directory may need a block, because the other directory grows. The spare is a file that holds some
blocks and one inode. If a rename finds no free block, the spare is removed and the rename is tried again.
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
SIZE = 256 << 10  # bytes: enough directory blocks for the names of a whole reclaim pass
FULL = (errno.ENOSPC, errno.EDQUOT)

_NEW_OR_OLD = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def keep(root: int) -> None:
    """Make the spare unless it is there in its whole size.

    Raises:
        OSError: the spare cannot be made, for example because there is no room; no part of it is left.
    """
    with suppress(FileNotFoundError):
        if os.stat(NAME, dir_fd=root, follow_symlinks=False).st_size >= SIZE:
            return
    try:
        with open_at(root, NAME, _NEW_OR_OLD) as file:
            # Random bytes take real blocks on every file system. A file system may compress zeros, or leave them out.
            write_all(file, os.urandom(SIZE))
            os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.unlink(NAME, dir_fd=root)
        raise


def with_spare(root: int, act: Callable[[], T]) -> T:
    """Call ``act``, which frees room; if the file system is full, remove the spare and call ``act`` once more.

    Args:
        root: descriptor of the volume's directory.
        act: the function to call; if it fails, it has changed nothing.

    Raises:
        OSError: the error of ``act``.
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
        # A file system with a journal can use the blocks again only after it has committed that they are free.
        sync_directory(root, ".")
