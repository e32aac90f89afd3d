"""The measurement, against a small HTTP server that stores and serves named files in memory."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.service.client import BenchError
from benchmarks.service.measuring import delete, download, percentile, upload
from benchmarks.service.targets import Target, named
from benchmarks.service.workloads import KIB, MIB, Workload, samples


class Files(ThreadingHTTPServer):
    """A server that keeps the body of each PUT under its path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored: dict[str, bytes] = {}
        self.connections = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Files

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_PUT(self) -> None:
        self.server.stored[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(201)

    def do_GET(self) -> None:
        if self.path in self.server.stored:
            self.answer(200, self.server.stored[self.path])
        else:
            self.answer(404, b"it is not here")

    def do_DELETE(self) -> None:
        self.answer(204 if self.server.stored.pop(self.path, None) is not None else 404)

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def files() -> Iterator[Files]:
    with Files() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(files: Files) -> Target:
    return named(f"webdav=http://127.0.0.1:{files.server_port}/below")


# The client sends a body of at most 1 MiB together with the head. The client sends a body of more than 1 MiB from the
# file on disk.
@pytest.mark.parametrize("size", [64 * KIB, 3 * MIB + 1])
def test_everything_goes_up_and_comes_down(files: Files, target: Target, tmp_path: Path, size: int) -> None:
    workload = Workload(clients=2, files=6, size=size)
    with samples(workload) as made:
        up = upload(target, workload, made, tmp_path)
        assert files.stored == {f"/below/{sample.path.name}": sample.path.read_bytes() for sample in made}
        down = download(target, workload, made, tmp_path)
        assert [bytes(sample.received) for sample in made] == [sample.path.read_bytes() for sample in made]
        assert files.connections == 4, "each client keeps its connection"
        delete(target, made)
    assert not files.stored
    for figures in (up, down):
        assert figures.operations_per_second * size / MIB == pytest.approx(figures.mib_per_second)
        assert 0 < figures.p50 <= figures.p99
        assert figures.cpu_per_gib is None, "its processes are not known"


def test_other_bytes_are_noticed(files: Files, target: Target, tmp_path: Path) -> None:
    workload = Workload(clients=1, files=1, size=KIB)
    with samples(workload) as made:
        upload(target, workload, made, tmp_path)
        files.stored = {name: bytes(len(data)) for name, data in files.stored.items()}
        with pytest.raises(BenchError, match="other bytes"):
            download(target, workload, made, tmp_path)


def test_a_body_of_another_length_is_noticed(files: Files, target: Target, tmp_path: Path) -> None:
    workload = Workload(clients=1, files=1, size=KIB)
    with samples(workload) as made:
        upload(target, workload, made, tmp_path)
        files.stored = {name: data[:-1] for name, data in files.stored.items()}
        with pytest.raises(BenchError, match="1023 bytes"):
            download(target, workload, made, tmp_path)


def test_a_refusal_ends_the_measurement(target: Target, tmp_path: Path) -> None:
    workload = Workload(clients=2, files=4, size=KIB)
    with samples(workload) as made, pytest.raises(BenchError, match="404 instead of 200: b'it is not here'"):
        download(target, workload, made, tmp_path)


def test_percentiles_are_values_that_occurred() -> None:
    hundred = [float(i) for i in range(100, 0, -1)]
    assert [percentile(hundred, p) for p in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7
    assert percentile([1.0, 2.0], 50) == 1
