"""How a process begins: tied to the one that started it, however that one ends, and settled."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal

_PR_SET_PDEATHSIG = 1
_YOUNG = 10_000  # objects made until the garbage collector looks at them
_M_MMAP_THRESHOLD = -3
_LARGE = 128 << 10  # bytes, glibc's own first choice


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
    """``argv``, to be started by this process, whose death then sends it ``signum``."""
    # The parent may die before the kernel has been asked to watch it; whoever then has another parent must not start.
    guarded = ["sh", "-c", f'[ "$PPID" = {os.getpid()} ] && exec "$@"', "sh", *argv]
    return ["setpriv", "--pdeathsig", signum.name.removeprefix("SIG"), "--", *guarded]


def settle() -> None:
    """Have the garbage collector leave alone what has been loaded, and keep what is large out of the heap.

    What batches leave behind goes by reference counts, nearly all of it. Chunks, which glibc would begin to put among
    small objects once it has seen some of them go, would leave holes there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
