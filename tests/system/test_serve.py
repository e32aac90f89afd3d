"""How the whole system starts, refuses to start, fails and ends.

The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from urllib.request import ProxyHandler, build_opener

import pytest

from occsite.launch.runtime import lingering, runtime_dir, scratch_dir
from tests.support.metrics import Scrape
from tests.support.system import INHERITED_LIMIT, START_LIMIT, STOP_LIMIT, System, alive, free_port, wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def refused(make_system: Callable[..., System]) -> Callable[..., str]:
    """Run serve with an environment that must be refused. Return the only line that serve prints."""

    def run(system: System | None = None, **environment: str) -> str:
        system = system or make_system()
        before = len(system.output()) if system.output_path.exists() else 0
        process = system.serve(**environment)
        assert process.wait(START_LIMIT) != 0
        said = system.output()[before:]
        assert said.count("\n") == 1, said
        assert said.startswith("occ-storage: ")
        return said

    return run


def await_end(pids: list[int], limit: float) -> None:
    wait_until(lambda: not alive(pids), limit, lambda: f"{alive(pids)} still run")


def test_the_system_becomes_ready(system: System) -> None:
    assert system.health()["status"] == "healthy"
    assert {"postgres", "valkey", "api", "worker", "maintenance"} <= system.pids().keys()


def test_the_processes_of_the_api_count_together(system: System) -> None:
    def starts() -> float | None:
        with build_opener(ProxyHandler({})).open(f"{system.base_url}/metrics", timeout=20) as answer:
            return Scrape.of(answer.read().decode())("occ_api_process_starts_total")

    wait_until(lambda: starts() == 2, START_LIMIT)
    files = {path.name for path in (scratch_dir(system.storage_dir) / "metrics").iterdir()}
    assert files == {f"{name}_{seat}.db" for name in ("counter", "histogram") for seat in (0, 1)} | {"0.lock", "1.lock"}


def test_state_and_sockets_are_for_their_owner_alone(system: System) -> None:
    runtime = runtime_dir(system.storage_dir)
    for path in (system.storage_dir, runtime, runtime / "valkey.conf", system.storage_dir / "secret"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert "trust" not in re.findall(r"^[^#].*?(\S+)$", (system.storage_dir / "postgres/pg_hba.conf").read_text(), re.M)


def test_a_second_run_on_the_folder_is_refused(system: System, refused: Callable[..., str]) -> None:
    assert f"another run (pid {system.pid}) uses {system.storage_dir}" in refused(system)
    assert system.health()["ready"] is True


def test_a_taken_port_is_refused(system: System, refused: Callable[..., str]) -> None:
    assert f"cannot listen on 127.0.0.1:{system.port}: Address already in use" in refused(PORT=str(system.port))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("REPLICATION_FACTOR", "none"),
        ("STORAGE_DIR", "/proc/nowhere"),
        ("DATABASE_URL", "mysql://localhost/occ"),
        ("REDIS_URL", "localhost"),
        ("LOG_LEVEL", "NONSENSE"),
        ("STORAGE_DIR", "/tmp/two\nlines"),
    ],
)
def test_a_bad_value_is_refused(name: str, value: str, refused: Callable[..., str]) -> None:
    assert name in refused(**{name: value})


def test_a_database_that_refuses_is_named_at_once(make_system: Callable[..., System]) -> None:
    system = make_system(DATABASE_URL=f"postgres://occ:hidden@127.0.0.1:{free_port()}/occ")
    assert system.serve().wait(START_LIMIT) == 1
    said = [line for line in system.output().splitlines() if line.startswith("occ-storage: ")]
    assert len(said) == 1
    assert "PostgreSQL cannot be reached" in said[0]
    assert "refused" in said[0]
    assert "correct DATABASE_URL" in said[0]
    assert "hidden" not in system.output()


def test_a_redis_that_refuses_the_password_is_named_at_once(system: System, make_system: Callable[..., System]) -> None:
    socket = runtime_dir(system.storage_dir) / "valkey.sock"
    other = make_system(REDIS_URL=f"unix://:hidden@{socket}?db=0", DATABASE_URL="postgres://127.0.0.1:1/occ")
    assert other.serve().wait(START_LIMIT) == 1
    assert "occ-storage: Redis refuses REDIS_URL" in other.output()
    assert "hidden" not in other.output()


@pytest.mark.parametrize("name", ["worker", "valkey", "postgres", "api"])
def test_a_killed_program_is_started_again(system: System, name: str) -> None:
    before = system.kill(name)
    wait_until(lambda: system.pids().get(name, before) != before, START_LIMIT, system.output)
    wait_until(system.is_ready, START_LIMIT, system.output)
    log = system.storage_dir / "logs" / f"{name}.log"
    assert f"occ-storage: {name} has ended and is started again; its last words are in {log}" in system.output()


def test_a_worker_process_dies_with_its_main_process(system: System) -> None:
    # Celery's pool starts a moment after the main process.
    wait_until(lambda: len(system.children("worker")) > 0, START_LIMIT, system.output)
    children = system.children("worker") + system.children("api")
    system.kill("worker")
    system.kill("api")
    await_end(children, INHERITED_LIMIT)
    wait_until(system.is_ready, START_LIMIT, system.output)


def test_nothing_survives_the_manager_and_the_next_start_works(system: System) -> None:
    pids = system.processes()
    system.kill("manager")
    await_end(pids, INHERITED_LIMIT)
    print(f"start after SIGKILL: {system.start():.1f} s")


def test_a_start_right_after_a_kill_works(system: System) -> None:
    system.kill("manager")
    system.start()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_in_order(system: System, signum: signal.Signals) -> None:
    pids = system.processes()
    took = system.stop(signum)
    print(f"{signum.name}: ended in {took:.1f} s")
    assert took < STOP_LIMIT
    assert system.process is not None
    assert system.process.returncode == 0
    assert not alive(pids)
    assert not lingering(system.storage_dir)
    assert not runtime_dir(system.storage_dir).exists()
    assert not scratch_dir(system.storage_dir).exists()
    log = (system.storage_dir / "logs" / "manager.log").read_text()
    assert log.rindex("stopped: api") < log.rindex("stopped: postgres")
    again = system.start()
    print(f"second start: {again:.1f} s")


def test_the_password_is_printed_once_and_logged_nowhere(system: System) -> None:
    found = re.findall(r"password (\S+)", system.output())
    assert len(found) == 1
    for log in (system.storage_dir / "logs").iterdir():
        assert found[0] not in log.read_text()


def test_a_failed_boot_ends_the_run(make_system: Callable[..., System]) -> None:
    system = make_system()
    system.start()
    system.stop()
    assert system.serve(REPLICATION_FACTOR="9").wait(START_LIMIT) == 1  # The program ``boot`` refuses this value.
    assert system.output().splitlines()[-2].startswith("occ-storage: REPLICATION_FACTOR=9")
    assert not lingering(system.storage_dir)


def test_a_program_that_does_not_stay_up_ends_the_first_start(make_system: Callable[..., System]) -> None:
    system = make_system(GUNICORN_CMD_ARGS="--nonsense")
    assert system.serve().wait(START_LIMIT) == 1
    log = system.storage_dir / "logs" / "api.log"
    assert [line for line in system.output().splitlines() if line.startswith("occ-storage: ")] == [
        f"occ-storage: api does not stay up; its last words are in {log}"
    ]
    assert "nonsense" in log.read_text()
    assert not lingering(system.storage_dir)
