"""What this machine can do at most, with nothing of ours in the way, in MiB/s."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from benchmarks.service.workloads import MIB, blocks

THREADS = (1, 4, 16)
FOLDERS = 16  # over which the files are spread
HASHING = "SHA-256, one core"
SENDING = "TCP over loopback"


def writing(threads: int) -> str:
    """The name of the ceiling for files that are safe on the disk."""
    return f"durable files, {threads} thread{'s' if threads > 1 else ''}"


def ceilings(folder: Path, chunk_size: int, size: int = 128 * MIB) -> dict[str, float]:
    """Each ceiling once, with ``size`` bytes in chunks of ``chunk_size``."""
    data = b"".join(blocks(chunk_size))
    found = {HASHING: _rate(size, lambda: _hash(data, size)), SENDING: _rate(size, lambda: _send(size))}
    for threads in THREADS:
        home = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
        for i in range(FOLDERS):
            (home / f"{i}").mkdir()
        os.sync()
        found[writing(threads)] = _rate(size, lambda: _write_all(home, data, size, threads))  # noqa: B023  called now
        shutil.rmtree(home)
    return found


def copies(found: dict[str, float], factor: int) -> tuple[str, float]:
    """The ceiling of uploads that every chunk of which is written ``factor`` times: its name, and MiB/s."""
    best = max(THREADS, key=lambda threads: found[writing(threads)])
    return f"{factor} durable copies, {best} threads", found[writing(best)] / factor


def write_durably(path: Path, data: bytes) -> None:
    """Write a file as a volume does: under a temporary name, fsync, rename, fsync of the folder."""
    draft = path.with_suffix(".tmp")
    with draft.open("xb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _rate(size: int, work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return size / MIB / (time.perf_counter() - begun)


def _hash(data: bytes, size: int) -> None:
    for _ in range(size // len(data)):
        sha256(data).digest()


def _write_all(home: Path, data: bytes, size: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: write_durably(home / f"{i % FOLDERS}" / f"{i}", data), range(size // len(data))))


def _send(size: int) -> None:
    """From one thread to another, which the interpreter lets run side by side here."""
    room = memoryview(bytearray(MIB))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as receiver:
        sender, _ = server.accept()
        thread = threading.Thread(target=_push, args=(sender, size))
        thread.start()
        while receiver.recv_into(room):
            pass
        thread.join()


def _push(connection: socket.socket, size: int) -> None:
    data = bytes(MIB)
    with connection:
        for _ in range(size // MIB):
            connection.sendall(data)
