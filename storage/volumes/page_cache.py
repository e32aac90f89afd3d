"""Reading files without a disk: the kernel gives only the bytes that it has in memory.

The file is opened only if its name is in the kernel's caches (openat2(2), RESOLVE_CACHED, Linux 5.12). O_NONBLOCK opens
a FIFO in a file's place without waiting for its writer. The file is read only if all of it is in the page cache
(cachestat(2), Linux 6.5), and then without waiting (preadv2(2), RWF_NOWAIT). RWF_NOWAIT alone is not enough: it would
start to read missing pages, and wait if the disk is busy. O_NOATIME keeps the read from being recorded. So no call of
this module hangs when a disk hangs (RACES 21).

The file system has to be local. A file system over a network, or a file system that a process serves, asks its server
even to open a cached file. If the kernel does not know or allow these system calls, ``read`` always returns None.
"""

from __future__ import annotations

import ctypes
import os
import stat
import threading

# The most bytes that are read at once, a chunk of 1 MiB with its header: each thread keeps a buffer of up to this size.
LARGEST = (1 << 20) + 4096

_LOCAL = {0xEF53, 0x58465342, 0x9123683E}  # ext2 to ext4, XFS, Btrfs
_OPENAT2, _CACHESTAT = 437, 451  # the numbers of the system calls on all architectures except Alpha
_RESOLVE_CACHED = 0x20
_HERE = -100  # AT_FDCWD
_PAGE = os.sysconf("SC_PAGESIZE")


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _How(os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOATIME, 0, _RESOLVE_CACHED)
_Range = ctypes.c_uint64 * 2  # struct cachestat_range: offset and length; the length 0 stands for the rest of the file
_Pages = ctypes.c_uint64 * 5  # struct cachestat, whose first field is the number of pages in memory
_FileSystem = ctypes.c_long * 32  # struct statfs, whose first field is the type; the array is longer than the struct

# These calls keep the interpreter's lock (GIL): to release the lock would take longer than the calls do.
_syscalls = ctypes.PyDLL(None, use_errno=True)
_openat2 = _syscalls["syscall"]
_openat2.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
_cachestat = _syscalls["syscall"]
_cachestat.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint]
_openat2.restype = _cachestat.restype = ctypes.c_long
_libc = ctypes.CDLL(None)

_mine = threading.local()


def is_local(descriptor: int) -> bool:
    """Tell whether ``read`` may read files of this descriptor's file system. The call may wait for a disk."""
    statistics = _FileSystem()
    return not _libc.fstatfs(descriptor, statistics) and statistics[0] in _LOCAL


def read(path: str) -> bytes | None:
    """The bytes of a whole local file of up to ``LARGEST`` bytes; None if reading them would need a disk."""
    descriptor: int = _openat2(_OPENAT2, _HERE, os.fsencode(path), ctypes.addressof(_HOW), ctypes.sizeof(_HOW))
    if descriptor < 0:
        return None
    try:
        status = os.fstat(descriptor)
        data = read_range(descriptor, 0, status.st_size) if stat.S_ISREG(status.st_mode) else None
        return None if data is None else bytes(data)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_range(descriptor: int, offset: int, length: int) -> memoryview | None:
    """Bytes of an open local file; None if reading them would need a disk, or if the file ends before.

    Args:
        descriptor: the open file.
        offset: where the bytes begin.
        length: the number of bytes; for 0, or more than ``LARGEST``, the result is None.

    Returns:
        A view of this thread's buffer. The next read of this thread overwrites the bytes.
    """
    if not 0 < length <= LARGEST:
        return None
    first, last = offset // _PAGE, (offset + length - 1) // _PAGE
    if _pages(descriptor, first * _PAGE, (last - first + 1) * _PAGE) <= last - first:
        return None
    buffer = _buffer(length)
    try:
        return buffer if os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT) == length else None
    except OSError:
        return None


def _pages(descriptor: int, offset: int = 0, length: int = 0) -> int:
    """The number of pages of a range that are in memory, or are being read into memory; by default of all pages."""
    counts, chosen = _Pages(), _Range(offset, length)
    failed = _cachestat(_CACHESTAT, descriptor, ctypes.addressof(chosen), ctypes.addressof(counts), 0)
    return 0 if failed else int(counts[0])


def _buffer(size: int) -> memoryview:
    """This thread's buffer of at least ``size`` bytes. The buffer is reused, because a new buffer for each read would
    cost more than to copy the bytes.
    """
    buffer: bytearray | None = getattr(_mine, "buffer", None)
    if buffer is None or len(buffer) < size:
        buffer = _mine.buffer = bytearray(size)
    return memoryview(buffer)[:size]
