"""Read the system calls of a process from strace, and tell which of their effects a power cut would undo."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.system import wait_until

NAMING = ("openat", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat")
WRITING = ("write", "pwrite64", "pwritev", "pwritev2")
SYNCING = ("fsync", "fdatasync")
TRACED = ",".join([*WRITING, *SYNCING, *NAMING, "fallocate", "sendto", "sendmsg"])
LIMIT = 30.0  # Seconds within which strace must attach to every thread; the machine may be busy with other work.

_LINE = re.compile(r"(?P<thread>\d+) +(?P<call>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>.*)")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_PATH = re.compile(r'(?:(?:\d+|AT_FDCWD)<([^>]*)>, )?"([^"]*)"')


@dataclass(frozen=True)
class Call:
    """One system call that succeeded.

    Attributes:
        name: the name of the call, such as ``fsync``.
        paths: the files that the arguments name, by a descriptor or by a name below a descriptor.
        text: the arguments as strace shows them.
    """

    name: str
    paths: tuple[Path, ...]
    text: str


def run(argv: Sequence[str], log: Path, **options: object) -> list[Call]:
    """Run a command to its end under strace. Return the system calls of the command in the order in which they
    returned.
    """
    subprocess.run([*_strace(log), *argv], check=True, **options)  # type: ignore[call-overload]
    return calls(log.read_text().splitlines())


@contextmanager
def attached(pids: Iterable[int], log: Path) -> Iterator[None]:
    """Trace all threads of running processes during the ``with`` block. The log is complete after the block."""
    chosen = list(pids)
    process = subprocess.Popen([*_strace(log), *(f"-p{pid}" for pid in chosen)], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: _traced(chosen) or process.poll() is not None, LIMIT)
        assert process.poll() is None, process.communicate()[1]
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)


def calls(lines: Iterable[str]) -> list[Call]:
    """Parse a log of strace. A call that strace shows in two parts is placed where it returned."""
    found, begun = [], {}
    for line in lines:
        if not (match := _LINE.fullmatch(line)):
            continue
        thread, text = match["thread"], match["call"]
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = begun.pop(thread, "") + text.partition("resumed>")[2].lstrip()
        if (call := _CALL.fullmatch(text)) and not call["result"].startswith("-1"):
            found.append(Call(call["name"], _paths(call["name"], call["arguments"]), call["arguments"]))
    return found


def undone_by_a_power_cut(found: Iterable[Call], below: Path) -> list[str]:
    """List the bytes and names below a directory that a power cut right after these calls would undo.

    Files that got their name before their bytes were durable are listed too. The model: only a sync of the file makes
    bytes durable, and only a sync of the directory makes names durable.
    """
    wrong, unsynced, unnamed = [], set[Path](), set[Path]()
    for call in found:
        if not call.paths or not call.paths[0].is_relative_to(below):
            continue
        path = call.paths[0]
        match call.name:
            case "openat" if "O_CREAT" in call.text:
                unnamed.add(path)
            case "write" | "pwrite64" | "pwritev" | "pwritev2":
                unsynced.add(path)
            case "fsync" | "fdatasync":
                unsynced.discard(path)
                unnamed -= {name for name in unnamed if name.parent == path}
            case "rename" | "renameat" | "renameat2" | "link" | "linkat":
                if path in unsynced:
                    wrong.append(f"{call.paths[1].name} had its name before its bytes were durable")
                unnamed |= set(call.paths)
            case "unlink" | "unlinkat":
                unsynced.discard(path)
                unnamed.discard(path)
    return wrong + [f"the bytes of {path.name}" for path in unsynced] + [f"the name {path.name}" for path in unnamed]


def _paths(name: str, arguments: str) -> tuple[Path, ...]:
    if name in NAMING:
        return tuple(Path(*found) for found in _PATH.findall(arguments))
    found = _DESCRIPTOR.match(arguments)
    return (Path(found[1]),) if found else ()


def _strace(log: Path) -> list[str]:
    return ["strace", "-f", "-y", "-s", "64", "-e", f"trace={TRACED}", "-o", str(log)]


def _traced(pids: Iterable[int]) -> bool:
    """Tell whether every thread of the processes is being traced."""
    threads = [path for pid in pids for path in Path(f"/proc/{pid}/task").iterdir()]
    return all("TracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)
