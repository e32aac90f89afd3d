"""Code, ``/tmp``, STORAGE_DIR and the terminal's output share a file system, which another program fills completely."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException

import psycopg
import pytest

from occsite.launch.embedded import DATABASE, POSTGRES_PORT, ROLE
from occsite.launch.secret import derive, read_secret
from tests.faults.disks import CannotMount
from tests.faults.machines import Machine, machine
from tests.support.installation import bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

FULL = 60.0  # Seconds without room. A program that cannot run without room ends within 25 seconds.
AT_ONCE = 2.0  # Seconds within which an upload must be refused.
RETURN_LIMIT = 30.0  # Seconds within which uploads must succeed again when there is room.
PATIENCE = 30.0  # Seconds that a request may take.


def request(system: Machine, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send a request and return the status and body of the answer. The status is 0 if no answer came."""
    server = HTTPConnection("127.0.0.1", system.port, timeout=PATIENCE)
    try:
        server.request(method, path, body)
        response = server.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        server.close()


class Reader(threading.Thread):
    """Downloads all files again and again, and counts the answers."""

    def __init__(self, system: Machine, files: dict[str, bytes]) -> None:
        super().__init__()
        self.system = system
        self.files = files
        self.answers: Counter[str] = Counter()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            for file_hash, data in self.files.items():
                status, body = request(self.system, "GET", f"/download/{file_hash}")
                self.answers["whole" if status == 200 and body == data else f"{status}, {len(body)} bytes"] += 1


@pytest.fixture(scope="module")
def system() -> Iterator[Machine]:
    try:
        with machine(INGEST_WORKERS="2") as found:
            found.start()
            yield found
    except CannotMount as error:
        pytest.skip(f"needs a file system of its own: {error}")


def test_a_full_machine_serves_what_it_has_and_takes_uploads_again(system: Machine) -> None:
    files = {upload(system, data): data for data in (bytes_of("small", 5000), bytes_of("large", 3 << 20))}
    programs = settled_programs(system)
    reader, refusals, slowest = Reader(system, files), Counter[int](), 0.0
    reader.start()
    try:
        with system.full():
            begun = time.monotonic()
            checkpoint(system)  # By itself, PostgreSQL makes a checkpoint only every five minutes.
            while time.monotonic() - begun < FULL:
                system.top_up()
                asked = time.monotonic()
                size = 3000 if sum(refusals.values()) % 2 else 3 << 20
                refusals[request(system, "PUT", "/upload/refused", bytes_of(f"new {asked}", size))[0]] += 1
                slowest = max(slowest, time.monotonic() - asked)
                time.sleep(0.5)
            ended = {programs[pid] for pid in programs.keys() - system.programs().keys()}
        over = time.monotonic()
        wait_until(lambda: request(system, "PUT", "/upload/kept", b"again")[0] == 201, RETURN_LIMIT, system.output)
        wait_until(system.is_ready, RETURN_LIMIT, system.output)
        recovery = time.monotonic() - over
    finally:
        reader.ended.set()
        reader.join()
    print(f"downloads {dict(reader.answers)}, uploads {dict(refusals)}, {slowest:.1f} s the slowest;")
    print(f"{len(ended)} programs ended; uploads again {recovery:.1f} s after there was room")
    assert set(reader.answers) == {"whole"}
    assert set(refusals) <= {503, 507}
    assert slowest < AT_ONCE
    assert system.is_running()
    assert not ended
    assert "Traceback" not in system.output()


def upload(system: Machine, data: bytes) -> str:
    status, body = request(system, "PUT", "/upload/file", data)
    assert status == 201, body
    return str(json.loads(body)["file_hash"])


def checkpoint(system: Machine) -> None:
    """Have PostgreSQL begin the next segment of its log, and make a checkpoint."""
    password = derive(str(read_secret(system.storage_dir)), "postgres")
    with psycopg.connect(
        host=str(system.runtime_dir), port=POSTGRES_PORT, user=ROLE, dbname=DATABASE, password=password, autocommit=True
    ) as session:
        session.execute("SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()")
        session.execute("CHECKPOINT")


def settled_programs(system: Machine) -> dict[int, str]:
    """Wait until no program has started or ended for 3 s, and return the programs: all run, and ``boot`` has ended."""
    time_of_last_change, found = time.monotonic(), system.programs()
    while time.monotonic() - time_of_last_change < 3:
        time.sleep(0.2)
        if (now := system.programs()).keys() != found.keys():
            time_of_last_change, found = time.monotonic(), now
    return found
