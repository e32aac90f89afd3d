"""Measures the limits of this machine without the service, in MiB/s."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import product
from pathlib import Path

from benchmarks.service.workloads import KIB, MIB, blocks

THREADS = (1, 4, 16)
FOLDERS = 16  # The files are spread over this number of directories.
HASHING = "SHA-256, one core"
SENDING = "TCP over loopback"


def writing(size: int, threads: int) -> str:
    """Return the name of the ceiling for writing durable files of ``size`` bytes."""
    return f"durable files of {size // KIB} KiB, {threads} thread{'s' if threads > 1 else ''}"


def ceilings(folder: Path, sizes: Collection[int], amount: int = 512) -> dict[str, float]:
    """Measure each ceiling once: write ``amount`` chunks of each size; hash and send ``amount`` chunks of the largest
    size.
    """
    chunk = b"".join(blocks(max(sizes)))
    whole = amount * len(chunk)
    found = {
        HASHING: _rate(whole, lambda: [sha256(chunk).digest() for _ in range(amount)]),
        SENDING: _rate(whole, lambda: _send(chunk, amount)),
    }
    for size, threads in product(sizes, THREADS):
        found[writing(size, threads)] = _write_all(folder, chunk[:size], amount, threads)
    return found


def copies(found: dict[str, float], size: int, factor: int) -> tuple[str, float]:
    """Return the name and MiB/s of the ceiling for uploads, whose chunks of ``size`` bytes get ``factor`` copies."""
    best = max((writing(size, threads) for threads in THREADS), key=lambda name: found[name])
    return f"{best}, {factor} copies", found[best] / factor


def write_durably(path: Path, data: bytes) -> None:
    """Write a file as a volume does: under a temporary name, fsync, rename, fsync of the directory."""
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


def _write_all(folder: Path, chunk: bytes, amount: int, threads: int) -> float:
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
    for i in range(FOLDERS):
        (home / f"{i}").mkdir()
    os.sync()
    paths = [home / f"{i % FOLDERS}" / f"{i}" for i in range(amount)]
    with ThreadPoolExecutor(threads) as pool:
        rate = _rate(amount * len(chunk), lambda: list(pool.map(lambda path: write_durably(path, chunk), paths)))
    shutil.rmtree(home)
    return rate


def _send(chunk: bytes, amount: int) -> None:
    """Send from one thread to another.

    The interpreter releases its lock for both threads, so they run at the same time.
    """
    room = memoryview(bytearray(MIB))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as receiver:
        sender, _ = server.accept()
        thread = threading.Thread(target=_push, args=(sender, chunk, amount))
        thread.start()
        while receiver.recv_into(room):
            pass
        thread.join()


def _push(connection: socket.socket, chunk: bytes, amount: int) -> None:
    with connection:
        for _ in range(amount):
            connection.sendall(chunk)
