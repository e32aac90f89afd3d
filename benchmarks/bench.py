#!/usr/bin/env python3
"""How fast uploads and downloads are, here and now: ``make bench``.

    python benchmarks/bench.py [--base-url URL] [--repeat N] [--workloads W1,W2,W3]

Starts the system on a free port with an empty folder below ``var``, unless BASE_URL or --base-url names a service.
Each workload uploads random files, which nothing can deduplicate, and downloads them all. Client and system share the
machine's cores; files are made before the clock starts and come from memory; disks are synced between the phases; every
body is compared by SHA-256 after the clock has stopped. Printed are the medians over the repeats. A failure ends it
with status 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import queue
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
TIMEOUT = 300.0  # seconds for one answer
START_LIMIT = 120.0  # seconds for the system to become ready
BOUNDARY = "occ-bench-" + os.urandom(16).hex()


class BenchError(Exception):
    """The system does not do what is measured."""


@dataclass(frozen=True)
class Workload:
    """So many files of one size, by so many clients, each on one connection that is kept open."""

    clients: int
    files: int
    size: int

    def __str__(self) -> str:
        size = f"{self.size // MIB} MiB" if self.size >= MIB else f"{self.size >> 10} KiB"
        return f"{self.files} × {size}, {self.clients} client{'s' if self.clients > 1 else ''}"


WORKLOADS = {
    "warm-up": Workload(8, 16, 64 << 10),
    "W1": Workload(1, 1, 256 * MIB),
    "W2": Workload(4, 64, 4 * MIB),
    "W3": Workload(8, 400, 64 << 10),
}


@dataclass(frozen=True)
class Sample:
    """A file of random bytes in memory, and room for what comes back."""

    path: Path
    digest: str
    received: bytearray


@dataclass(frozen=True)
class Figures:
    """What one phase took: throughput, and latencies in milliseconds."""

    mib_per_second: float
    operations_per_second: float
    p50: float
    p99: float

    @classmethod
    def of(cls, workload: Workload, seconds: float, latencies: Sequence[float]) -> Figures:
        ordered = sorted(latencies)
        p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
        rate = len(ordered) / seconds
        return cls(rate * workload.size / MIB, rate, statistics.median(ordered) * 1000, p99 * 1000)

    @classmethod
    def median(cls, many: Sequence[Figures]) -> Figures:
        return cls(
            statistics.median(one.mib_per_second for one in many),
            statistics.median(one.operations_per_second for one in many),
            statistics.median(one.p50 for one in many),
            statistics.median(one.p99 for one in many),
        )


# -- one client --------------------------------------------------------------


class Client:
    """One connection to the API."""

    def __init__(self, base_url: str) -> None:
        self._connection = HTTPConnection(urlsplit(base_url).netloc, timeout=TIMEOUT)

    def upload(self, sample: Sample) -> None:
        head, tail = _form(sample.path.name)
        size = sample.path.stat().st_size
        self._connection.putrequest("POST", "/upload", skip_accept_encoding=True)
        self._connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        self._connection.putheader("Content-Length", str(len(head) + size + len(tail)))
        self._connection.endheaders(head)
        with sample.path.open("rb") as file:
            self._connection.sock.sendfile(file)
        self._connection.send(tail)
        answer = self._answer(201)
        if answer["file_hash"] != sample.digest:
            raise BenchError(f"the system calls {sample.digest} {answer['file_hash']}")

    def download(self, sample: Sample) -> None:
        self._connection.request("GET", f"/download/{sample.digest}")
        response = self._connection.getresponse()
        if response.status != 200:
            raise BenchError(f"a download answers {response.status}: {response.read(300)!r}")
        room = memoryview(sample.received)
        while room and (count := response.readinto(room[:MIB])):
            room = room[count:]
        if room or response.read():
            raise BenchError(f"{sample.digest} came back with another length")

    def get(self, path: str) -> dict[str, Any]:
        self._connection.request("GET", path)
        return self._answer(200)

    def delete(self, sample: Sample) -> None:
        self._connection.request("DELETE", f"/files/{sample.digest}")
        self._connection.getresponse().read()

    def close(self) -> None:
        self._connection.close()

    def _answer(self, expected: int) -> dict[str, Any]:
        response = self._connection.getresponse()
        body = response.read()
        if response.status != expected:
            raise BenchError(f"the system answers {response.status} instead of {expected}: {body[:300]!r}")
        return dict(json.loads(body))


def _form(name: str) -> tuple[bytes, bytes]:
    """What stands before and after the file in the body of an upload."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
    return head.encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


# -- measuring ---------------------------------------------------------------


def measure(base_url: str, workload: Workload, *, clean: bool) -> tuple[Figures, Figures]:
    """Upload and download one workload's files, and delete them again if ``clean``."""
    with samples(workload) as made:
        try:
            os.sync()
            up = run(base_url, workload, made, Client.upload)
            os.sync()
            down = run(base_url, workload, made, Client.download)
        finally:
            if clean:
                _delete(base_url, made)
        for sample in made:
            if sha256(sample.received).hexdigest() != sample.digest:
                raise BenchError(f"{sample.digest} came back with other bytes")
    return up, down


def _delete(base_url: str, made: Sequence[Sample]) -> None:
    client = Client(base_url)
    for sample in made:
        client.delete(sample)
    client.close()


@contextmanager
def samples(workload: Workload) -> Iterator[list[Sample]]:
    """Fresh random files."""
    folder = Path(tempfile.mkdtemp(prefix="occ-bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        yield [_sample(folder / f"{i:03}.bin", workload.size) for i in range(workload.files)]
    finally:
        shutil.rmtree(folder)


def _sample(path: Path, size: int) -> Sample:
    digest = sha256()
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            block = os.urandom(min(MIB, size - start))
            digest.update(block)
            file.write(block)
    # Filled once, so that the kernel gives the memory now and not while the clock runs.
    return Sample(path, digest.hexdigest(), bytearray(b"\xff") * size)


def run(
    base_url: str, workload: Workload, made: Sequence[Sample], operation: Callable[[Client, Sample], None]
) -> Figures:
    """Carry out an operation on every sample, the clients side by side."""
    waiting: queue.SimpleQueue[Sample] = queue.SimpleQueue()
    for sample in made:
        waiting.put(sample)
    latencies: list[float] = []
    failures: list[Exception] = []
    ready = threading.Barrier(workload.clients + 1)

    def work() -> None:
        client = Client(base_url)
        try:
            try:
                client.get("/health")  # connects
            finally:
                ready.wait()
            while not failures:
                begun = time.perf_counter()
                operation(client, waiting.get_nowait())
                latencies.append(time.perf_counter() - begun)
        except queue.Empty:
            pass
        except (BenchError, HTTPException, OSError) as error:
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workload.clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    if failures:
        raise BenchError(f"an operation failed: {failures[0]!r}")
    return Figures.of(workload, seconds, latencies)


# -- the system --------------------------------------------------------------


@contextmanager
def system() -> Iterator[str]:
    """The whole system on an empty folder of the project's disk; its address."""
    (PROJECT / "var").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=PROJECT / "var"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    foreign = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    environment |= {"STORAGE_DIR": str(folder / "state"), "HOST": "127.0.0.1", "PORT": str(port)}
    argv = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, str(PROJECT / "manage.py"), "serve"]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(argv, cwd=PROJECT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        base_url = f"http://127.0.0.1:{port}"
        _await_ready(base_url, process, folder / "output")
        yield base_url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        shutil.rmtree(folder)


def _await_ready(base_url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Until the API is ready and the sketches of the new nodes are built."""
    deadline = time.monotonic() + START_LIMIT
    while True:
        client = Client(base_url)
        try:
            if client.get("/health")["ready"] and client.get("/status")["network"]["sketches"] == "trusted":
                return
        except (BenchError, HTTPException, OSError):
            pass
        finally:
            client.close()
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the system does not become ready:\n{output.read_text()}")
        time.sleep(0.2)


@contextmanager
def named(base_url: str) -> Iterator[str]:
    yield base_url.rstrip("/")


# -- what it ran on ----------------------------------------------------------


def surroundings(base_url: str, repeat: int) -> str:
    client = Client(base_url)
    config = client.get("/status")["config"]
    client.close()
    machine = f"{os.cpu_count()} cores ({_processor()}), {platform.system()} {platform.release().split('-')[0]}"
    settings = ", ".join(f"{name} {config[name]}" for name in ("num_nodes", "replication_factor", "chunk_size"))
    python = f"Python {platform.python_version()}, {_file_system(PROJECT)}"
    return f"On {machine}, {python}; {settings}; medians of {repeat}; client and system share the cores."


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """The type of the file system that holds a path: the one mounted nearest above it."""
    found = ("", "unknown file system")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split(" ")
        if path.is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1]


def table(results: dict[str, list[tuple[Figures, Figures]]]) -> str:
    lines = ["| workload | | MiB/s | ops/s | p50 ms | p99 ms |", "|---|---|---:|---:|---:|---:|"]
    for name, pairs in results.items():
        for direction, index in (("up", 0), ("down", 1)):
            f = Figures.median([pair[index] for pair in pairs])
            title = f"{name}: {WORKLOADS[name]}"
            numbers = (f.mib_per_second, f.operations_per_second, f.p50, f.p99)
            lines.append(f"| {title} | {direction} | " + " | ".join(_shown(number) for number in numbers) + " |")
    return "\n".join(lines)


def _shown(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default=os.environ.get("BASE_URL"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workloads", default="W1,W2,W3")
    options = parser.parse_args()
    names = options.workloads.split(",")
    results: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name in names}
    try:
        with named(options.base_url) if options.base_url else system() as base_url:
            clean = bool(options.base_url)  # the folder of a system of our own goes as a whole
            measure(base_url, WORKLOADS["warm-up"], clean=clean)
            for _ in range(options.repeat):
                for name in names:
                    results[name].append(measure(base_url, WORKLOADS[name], clean=clean))
                    print(".", end="", flush=True, file=sys.stderr)
            where = surroundings(base_url, options.repeat)
    except (BenchError, HTTPException, OSError) as error:
        print(f"\nbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("", file=sys.stderr)
    print(table(results))
    print(f"\n{where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
