"""Reading what needs no disk: the kernel is asked for bytes that it has in memory, and for nothing else.

A name is looked up in the caches alone (openat2(2), RESOLVE_CACHED, Linux 5.12), a FIFO in a file's place is opened
without waiting for its writer, bytes are taken from the page cache alone (preadv2(2), RWF_NOWAIT), and when the file
was read is not noted. None of this can hang with a disk, so that it needs no thread of the disk's own (RACES 21).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading

LARGEST = 1 << 20  # bytes: each thread keeps a buffer

_OPENAT2 = 437  # the number on all architectures but Alpha
_RESOLVE_CACHED = 0x20
_HERE = -100  # AT_FDCWD


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _How(os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOATIME, 0, _RESOLVE_CACHED)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]

_mine = threading.local()
_is_supported = True


def read(path: str) -> bytes | None:
    """A whole file of up to ``LARGEST`` bytes; None when that would take a disk, or cannot be had this way."""
    if not _is_supported:
        return None
    descriptor = _open(path)
    if descriptor is None:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= LARGEST:
            return None
        buffer = _buffer(found.st_size)
        if os.preadv(descriptor, [buffer], 0, os.RWF_NOWAIT) != found.st_size:
            return None
        return bytes(buffer)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _open(path: str) -> int | None:
    global _is_supported
    descriptor: int = _syscall(_OPENAT2, _HERE, path.encode(), ctypes.addressof(_HOW), ctypes.sizeof(_HOW))
    if descriptor >= 0:
        return descriptor
    if ctypes.get_errno() in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
        _is_supported = (
            False  # an old kernel, one that is told to forbid it, or files of others: asking again is in vain
        )
    return None


def _buffer(size: int) -> memoryview:
    """Memory that has been touched before: fresh pages would cost as much as the copy."""
    buffer: bytearray | None = getattr(_mine, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _mine.buffer = bytearray(size)
    return memoryview(buffer)[:size]
