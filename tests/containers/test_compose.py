"""``docker-compose.yml`` as an operator uses it: up, scale, restart, crash, down.

The tests share one stack and run in the order of this file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.containers.engine import PROJECT, START_LIMIT, Stack, crash, docker, inspect
from tests.faults.journal import Action, Journal, Outcome
from tests.faults.oracle import Oracle
from tests.support.system import wait_until

pytestmark = pytest.mark.containers

LARGE = 96 << 20
RECOVERY = 60.0  # Seconds until work goes on after a crash; the lease of a dead worker ends only after 20 seconds.


class Load:
    """Clients that upload, download and record the answers in the journal until ``end`` is called."""

    def __init__(self, journal: Journal, clients: int = 3) -> None:
        self.journal = journal
        self._over = Event()
        self._threads = [Thread(target=self._work, args=[client]) for client in range(clients)]
        for thread in self._threads:
            thread.start()

    def _work(self, client: int) -> None:
        number = 0
        while not self._over.is_set():
            attempt = self.journal.upload(os.urandom(200_000), f"load_{client}_{number}")
            if attempt.outcome is Outcome.ACKNOWLEDGED:
                self.journal.download(attempt.file_hash)
            number += 1

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def failures(self, action: Action) -> list[str]:
        of_it = [attempt for attempt in self.journal.attempts if attempt.action is action]
        assert len(of_it) > 10
        return [str(attempt) for attempt in of_it if attempt.outcome is not Outcome.ACKNOWLEDGED]


def test_it_serves_as_soon_as_up_returns(stack: Stack) -> None:
    assert stack.is_serving()
    environment = {**os.environ, "BASE_URL": stack.base_url}
    done = subprocess.run(
        [sys.executable, "test_api.py"], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout


def test_no_database_is_published_and_the_doors_on_this_machine_alone(stack: Stack) -> None:
    published = {
        container["Config"]["Labels"]["com.docker.compose.service"]: [
            binding["HostIp"] for bindings in ports.values() for binding in bindings or ()
        ]
        for container in stack.all_containers()
        if (ports := container["NetworkSettings"]["Ports"]) is not None
    }
    assert published.pop("gateway") == ["127.0.0.1"] * 2, "the API and the S3 door"
    assert not any(published.values()), published


def test_every_container_turns_healthy(stack: Stack) -> None:
    def ailing() -> list[str]:
        running = [container for container in stack.all_containers() if container["State"]["Running"]]
        return [c["Name"] for c in running if c["State"]["Health"]["Status"] != "healthy"]

    wait_until(lambda: not ailing(), START_LIMIT, lambda: str(ailing()))
    assert len(stack.all_containers()) == 8  # Two of these containers have ended: `passwords` and `prepare`.


def test_no_container_may_do_more_than_it_has_to(stack: Stack) -> None:
    for container in stack.all_containers():
        service, host = container["Config"]["Labels"]["com.docker.compose.service"], container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        if container["State"]["Running"]:
            told = docker("exec", container["Id"], "cat", "/proc/1/status")
            status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
            assert "0" not in status["Uid"].split(), service
            assert {int(status[sort], 16) for sort in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {0}, service
            assert status["NoNewPrivs"] == "1", service


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB", "CONFIG GET *", "KEYS *", "SHUTDOWN"])
def test_nobody_may_empty_list_or_stop_redis(stack: Stack, command: str) -> None:
    client, quoted = ["exec", "-T", "redis", "sh", "-c"], command.replace("*", "'*'")
    known = 'valkey-cli --no-auth-warning --user occ --pass "$(cat /passwords/password)"'
    assert "NOPERM" in stack.compose(*client, f"{known} {quoted}")
    assert "NOAUTH" in stack.compose(*client, f"valkey-cli {quoted}")


def test_passwords_are_random_and_in_no_environment(stack: Stack) -> None:
    passwords = [
        stack.compose("exec", "-T", service, "cat", "/passwords/password").strip() for service in ("postgres", "redis")
    ]
    assert len({*passwords, "occ"}) == 3
    assert min(map(len, passwords)) > 40
    shown = json.dumps(stack.all_containers())
    assert not any(password in shown for password in passwords)
    assert stack.compose("exec", "-T", "redis", "ls", "/passwords").split() == ["password", "users.acl"]


def test_logs_of_the_api_are_lines_of_json(stack: Stack) -> None:
    lines = stack.compose("logs", "--no-color", "--tail", "100", "occ-storage").splitlines()
    events = [json.loads(line.partition("| ")[2]) for line in lines if "| {" in line]
    assert "request_finished" in {event["event"] for event in events}


def test_several_apis_share_one_address(stack: Stack) -> None:
    stack.up("--scale", "occ-storage=3", "--scale", "worker=3")
    assert len(stack.containers("occ-storage")) == len(stack.containers("worker")) == 3

    def answering() -> set[str]:
        assert stack.is_serving()
        log = [line.partition("| ")[2] for line in stack.compose("logs", "--no-color", "gateway").splitlines()]
        return {json.loads(line)["api"] for line in log if line.startswith("{")}

    wait_until(lambda: len(answering()) >= 3, START_LIMIT)


def test_a_rolling_restart_fails_no_request(stack: Stack) -> None:
    load = Load(stack.journal())
    try:
        for container in stack.containers("occ-storage"):
            docker("restart", container)
            wait_until(lambda container=container: health_of(container) == "healthy", START_LIMIT)  # type: ignore[misc]
    finally:
        load.end()
    print(f"{len(load.journal.attempts)} requests during the restarts")
    assert load.failures(Action.UPLOAD) + load.failures(Action.DOWNLOAD) == []


def test_a_restart_lets_an_upload_end(stack: Stack) -> None:
    stack.up("--scale", "occ-storage=1", "--scale", "worker=1")
    journal = stack.journal()
    container = stack.containers("occ-storage")[0]
    told = docker("logs", container).count("Handling signal: term")
    restart = Thread(target=lambda: stack.compose("restart", "occ-storage"))

    def begin_restart() -> None:
        restart.start()
        wait_until(lambda: docker("logs", container).count("Handling signal: term") > told, 20)

    upload = journal.upload(os.urandom(LARGE), "through_a_restart.bin", midway=begin_restart)
    restart.join()
    assert (upload.outcome, upload.status) == (Outcome.ACKNOWLEDGED, 201), upload
    wait_until(stack.is_serving, START_LIMIT)
    Oracle(journal_of_what_is_listed(stack, journal)).check()


@pytest.mark.parametrize("blow", ["restart", "crash", "kill"])
def test_an_upload_outlives_its_worker(stack: Stack, blow: str) -> None:
    journal = stack.journal()
    container = stack.containers("worker")[0]

    def strike() -> None:
        wait_until(lambda: '"event": "ingest.started"' in new_log(), 60)
        if blow == "restart":
            stack.compose("restart", "worker")
        elif blow == "crash":
            crash(container)  # The engine starts the container again.
        else:
            docker("kill", container)  # The engine does not restart this container: an operator must.
            stack.up()

    before = len(docker("logs", container))

    def new_log() -> str:
        return docker("logs", container)[before:]

    striking = Thread(target=strike)
    striking.start()
    upload = journal.upload(os.urandom(LARGE), f"through_a_{blow}.bin")
    striking.join()
    assert (upload.outcome, upload.status) == (Outcome.ACKNOWLEDGED, 201), upload
    print(f"worker: {blow} in mid-upload, answered after {upload.ended - upload.begun:.1f} s")
    wait_until(lambda: journal.ask(f"/verify/{upload.file_hash}")[1]["replication"]["min"] == 3, RECOVERY)
    assert journal.download(upload.file_hash).outcome is Outcome.ACKNOWLEDGED


def test_everything_is_there_after_a_crash_of_every_container(stack: Stack) -> None:
    journal = stack.journal()
    journal.upload(os.urandom(5_000_000), "kept.bin")
    stack.compose("kill")
    stack.up()
    assert stack.is_serving()
    assert journal.download(journal.attempts[0].file_hash).outcome is Outcome.ACKNOWLEDGED


def test_everything_is_there_after_down_and_up(stack: Stack) -> None:
    journal = stack.journal()
    journal.upload(os.urandom(5_000_000), "kept.bin")
    stack.compose("down")
    assert not stack.all_containers()
    stack.up()
    assert journal.download(journal.attempts[0].file_hash).outcome is Outcome.ACKNOWLEDGED


def test_an_env_file_reaches_every_service(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    wanted = {"NUM_NODES": 6, "N_PRIME": 50000, "TAU": 15, "REPLICATION_FACTOR": 5, "CHUNK_SIZE": 524288}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in wanted.items()))
    stack = make_stack([], tmp_path / ".env")
    stack.up()
    for service in ("occ-storage", "worker", "maintenance"):
        found = stack.compose("exec", "-T", service, "env").splitlines()
        assert {f"{name}={value}" for name, value in wanted.items()} <= set(found), service
    journal = stack.journal()
    config = journal.ask("/status")[1]["config"]
    assert {name: config[name.lower()] for name in wanted} == wanted
    upload = journal.upload(os.urandom(3 * 524288), "five.bin")
    report = journal.ask(f"/verify/{upload.file_hash}")[1]
    assert (len(report["chunks"]), report["replication"]["min"]) == (3, 5)


def test_a_node_on_a_disk_of_its_own_goes_and_comes_with_it(
    make_stack: Callable[..., Stack], tmp_path: Path, image: str
) -> None:
    disks = [tmp_path / f"disk{number}" for number in range(5)]
    for disk in disks:
        disk.mkdir()
    own = ["run", "--rm", "--user", "0", "-v", f"{tmp_path}:/disks", image, "sh", "-c"]
    docker(*own, "chown 10001:10001 /disks/disk*")
    stack = make_stack(["docker-compose.disks.yml"], DISKS=str(tmp_path))
    stack.up()
    journal = stack.journal()
    upload = journal.upload(os.urandom(8_000_000), "spread.bin")
    assert all((disk / "identity").exists() for disk in disks)
    stack.compose("down")
    docker(*own, "mv /disks/disk3 /disks/unplugged && mkdir /disks/disk3 && chown 10001:10001 /disks/disk3")
    stack.up()
    wait_until(lambda: journal.ask("/health")[1]["nodes"] == 4, START_LIMIT)
    assert journal.download(upload.file_hash).outcome is Outcome.ACKNOWLEDGED
    assert journal.upload(os.urandom(8_000_000), "on_four.bin").outcome is Outcome.ACKNOWLEDGED
    assert not list(disks[3].iterdir())
    stack.compose("down")
    docker(*own, "rmdir /disks/disk3 && mv /disks/unplugged /disks/disk3")
    stack.up()
    wait_until(lambda: journal.ask("/health")[1]["nodes"] == 5, START_LIMIT)
    docker(*own, "rm -rf /disks/*")


def health_of(container: str) -> str:
    return str(inspect(container)["State"]["Health"]["Status"])


def journal_of_what_is_listed(stack: Stack, journal: Journal) -> Journal:
    """Delete the files of earlier tests and return ``journal``.

    The oracle reports each listed file that the journal did not upload as a broken promise.
    """
    known = {attempt.file_hash for attempt in journal.attempts}
    for entry in journal.ask("/files?limit=1000")[1]["files"]:
        if entry["file_hash"] not in known:
            stack.journal().delete(entry["file_hash"])
    return journal
