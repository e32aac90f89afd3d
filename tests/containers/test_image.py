"""The whole system in one container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from threading import Thread

import pytest

from storage.conf import VERSION
from tests.containers.engine import START_LIMIT, crash, docker, inspect
from tests.faults.journal import Journal, Outcome
from tests.faults.oracle import Oracle
from tests.support.system import free_port, wait_until

pytestmark = pytest.mark.containers

NAME = f"occ-storage-test-{os.getpid()}"
STOP_LIMIT = 8.0  # Seconds that a stop may take; `docker stop` kills a container after ten.
LARGE = 64 << 20


class Container:
    """One container with one volume. The volume stays when the container is removed."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.port = free_port()
        self.journal = Journal(f"http://127.0.0.1:{self.port}")

    def run(self, *options: str) -> None:
        published = ["-p", f"127.0.0.1:{self.port}:5000", "-v", f"{NAME}:/data/occ_storage"]
        docker("run", "-d", "--name", NAME, *published, *options, self.image)

    def remove(self) -> None:
        docker("rm", "-f", NAME, check=False)

    def await_ready(self) -> float:
        return wait_until(lambda: self.journal.ask("/health")[0] == 200, START_LIMIT, lambda: docker("logs", NAME))


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    found = Container(image)
    found.run("-e", "NUM_NODES=5", "-e", "REPLICATION_FACTOR=3")
    yield found
    found.remove()
    docker("volume", "rm", "-f", NAME)


def test_it_becomes_ready_and_keeps_a_file(container: Container) -> None:
    print(f"ready after {container.await_ready():.1f} s")
    upload = container.journal.upload(os.urandom(3_000_000), "first.bin")
    assert upload.status == 201
    Oracle(container.journal).check()


def test_it_runs_as_an_ordinary_user_and_writes_to_its_volume_alone(container: Container) -> None:
    assert docker("exec", NAME, "id", "-u").strip() == "10001"
    assert "manage.py serve" in docker("exec", NAME, "cat", "/proc/1/cmdline").replace("\0", " ")
    changed = [line.split()[1] for line in docker("diff", NAME).splitlines()]
    assert [path for path in changed if not path.startswith("/tmp")] == ["/data"] * ("/data" in changed)
    assert "/data" in docker("exec", NAME, "df", "-h", "/data/occ_storage")


def test_it_tells_what_it_is(image: str) -> None:
    labels = inspect(image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "OCC Storage"
    assert labels["org.opencontainers.image.version"] == VERSION


def test_its_log_is_on_standard_output_and_the_password_in_it_once(container: Container) -> None:
    log = docker("logs", NAME)
    assert log.count("shown only this once") == 1
    assert '"request": "POST /upload"' in log
    assert '"event": "ingest.succeeded"' in log


def test_a_stop_is_clean_and_a_start_finds_everything(container: Container) -> None:
    took = wait_until(lambda: docker("stop", NAME), STOP_LIMIT)
    state = inspect(NAME)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert took < STOP_LIMIT
    docker("start", NAME)
    print(f"stopped in {took:.1f} s, ready again after {container.await_ready():.1f} s")
    Oracle(container.journal).check()


def test_a_stop_in_the_middle_of_the_first_start_is_clean(container: Container) -> None:
    docker("restart", NAME)
    wait_until(lambda: "manage.py" in docker("top", NAME), STOP_LIMIT)
    assert wait_until(lambda: docker("stop", NAME), STOP_LIMIT) < STOP_LIMIT
    docker("start", NAME)
    container.await_ready()


def test_a_kill_in_mid_upload_loses_nothing_that_was_acknowledged(container: Container) -> None:
    journal = container.journal
    assert journal.upload(os.urandom(LARGE), "accepted.bin", respond_async=True).status == 202
    kill = Thread(target=crash, args=[NAME])
    journal.upload(os.urandom(LARGE), "cut.bin", midway=kill.start)
    kill.join()
    wait_until(lambda: not inspect(NAME)["State"]["Running"], STOP_LIMIT)
    docker("start", NAME)
    print(f"ready {container.await_ready():.1f} s after SIGKILL")
    accepted = next(attempt for attempt in journal.attempts if attempt.job)
    wait_until(lambda: journal.job_state(accepted) == "succeeded", 60)
    Oracle(journal).check()


def test_a_new_container_takes_over_the_volume(container: Container) -> None:
    docker("stop", NAME)
    container.remove()
    container.run("-e", "NUM_NODES=6", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL")
    container.await_ready()
    status, health = container.journal.ask("/health")
    assert (status, health["nodes"]) == (200, 6)
    Oracle(container.journal).check()
    assert container.journal.upload(b"more", "more.txt").outcome is Outcome.ACKNOWLEDGED


def test_it_turns_healthy_by_itself(container: Container) -> None:
    assert inspect(NAME)["Config"]["Healthcheck"]["Interval"] == 30 * 10**9
    wait_until(lambda: inspect(NAME)["State"]["Health"]["Status"] == "healthy", 45)


def test_a_second_container_on_the_volume_is_refused(container: Container) -> None:
    said = docker("run", "--rm", "-v", f"{NAME}:/data/occ_storage", container.image, check=False)
    assert "occ-storage: another run" in said
    assert container.journal.ask("/health")[0] == 200


def test_a_bad_value_is_refused_with_a_line(image: str) -> None:
    said = docker("run", "--rm", "-e", "NUM_NODES=2", image, check=False)
    assert "occ-storage: REPLICATION_FACTOR=3, but the cluster has 2 nodes; lower the one or add nodes\n" in said
