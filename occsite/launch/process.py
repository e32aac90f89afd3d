"""The first steps of a process: it asks the kernel to end it when its parent dies, and sets up its memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal

_PR_SET_PDEATHSIG = 1
_YOUNG = 10_000  # The garbage collector runs after this many new objects.
_M_MMAP_THRESHOLD = -3
_LARGE = 128 << 10  # bytes: the value with which glibc begins


def die_with_parent(signum: signal.Signals, parent: int) -> None:
    """Have the kernel send ``signum`` to this process when ``parent``, which must have forked it, dies.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died between the fork and the call above.
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


def dying_with_parent(signum: signal.Signals, argv: list[str]) -> list[str]:
    """A command that runs ``argv`` as a child of this process, and that gets ``signum`` when this process dies."""
    # The parent may die before the kernel has been asked to watch it. If the parent has died by then, the child must
    # not start ``argv``.
    guarded = ["sh", "-c", f'[ "$PPID" = {os.getpid()} ] && exec "$@"', "sh", *argv]
    return ["setpriv", "--pdeathsig", signum.name.removeprefix("SIG"), "--", *guarded]


def settle() -> None:
    """Exclude all loaded objects from garbage collection, and keep large blocks of memory out of the heap.

    Reference counts free nearly all objects of a batch, so the garbage collector can run seldom. After some chunks were
    freed, glibc would begin to put chunks into the heap among small objects, where freed chunks leave holes. A fixed
    threshold for large blocks prevents such holes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    with contextlib.suppress(AttributeError):  # Another libc may have no mallopt.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
