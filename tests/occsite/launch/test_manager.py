"""How the process manager treats programs that end again and again.

The tests set the clock of supervisor's state machine.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor import events
from supervisor.states import ProcessStates

from occsite.launch.manager import ATTEMPTS, Manager, run
from occsite.launch.programs import supervisor_configuration
from occsite.launch.runtime import make_runtime_dir
from storage.conf import Configuration
from storage.exceptions import ConfigurationError


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A manager that receives the events of its programs, and whose main loop does not run."""
    configuration = Configuration.from_environment({"STORAGE_DIR": str(tmp_path / "100% s'#; x")})
    path = make_runtime_dir(configuration.storage_dir) / "manager.conf"
    path.write_text(supervisor_configuration(configuration))
    found = Manager(configuration)
    found.options.realize(["-c", str(path)])
    found.options.make_logger()
    events.clear()
    monkeypatch.setattr("supervisor.supervisord.Supervisor.runforever", lambda _: None)
    monkeypatch.setattr(found.options, "poller", type("Poller", (), {"poll": None})())
    found.runforever()
    for group in found.options.process_group_configs:
        found.add_process_group(group)
    yield found
    events.clear()
    shutil.rmtree(path.parent)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_800_000_000.0]
    monkeypatch.setattr("supervisor.process.time.time", lambda: now[0])
    return now


def process_of(manager: Manager, name: str) -> Any:
    found = next(group.processes[name] for group in manager.process_groups.values() if name in group.processes)
    found.config.command = "/nonexistent/program"
    return found


def pauses(manager: Manager, process: Any, clock: list[float], attempts: int) -> list[float]:
    """Return the seconds between attempts to start a program that cannot be started."""
    found = []
    for _ in range(attempts):
        process.spawn()
        begun = clock[0]
        while True:
            clock[0] += 0.5
            if clock[0] > process.delay:
                break
            process.transition()
            assert process.state == ProcessStates.BACKOFF
        found.append(clock[0] - begun)
    return found


def test_a_program_is_tried_again_for_ever(manager: Manager, clock: list[float]) -> None:
    manager.booted = True
    found = pauses(manager, process_of(manager, "worker"), clock, 100)
    assert found[0] < 2
    assert found == sorted(found)
    assert 29 <= found[-1] <= 31
    assert not manager.failed


def test_databases_are_tried_again_sooner(manager: Manager, clock: list[float]) -> None:
    manager.booted = True
    assert pauses(manager, process_of(manager, "postgres"), clock, 20)[-1] < 6


def test_a_clock_that_is_set_back_delays_nothing(manager: Manager, clock: list[float]) -> None:
    manager.booted = True
    process = process_of(manager, "worker")
    pauses(manager, process, clock, 40)
    process.spawn()
    clock[0] -= 3600
    process.transition()
    assert process.delay - clock[0] <= 30


def test_before_the_first_start_has_succeeded_a_program_that_fails_ends_the_run(
    manager: Manager, clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    process = process_of(manager, "api")
    pauses(manager, process, clock, ATTEMPTS - 1)
    assert capfd.readouterr().err == ""
    process.spawn()
    assert manager.failed
    log = manager.configuration.storage_dir / "logs" / "api.log"
    assert capfd.readouterr().err == f"occ-storage: api does not stay up; its last words are in {log}\n"


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        (b"a warning\nocc-storage: NUM_NODES is wrong\n", 1, "NUM_NODES is wrong"),
        (b"Traceback:\nKeyError: 'x'\n", 1, "boot failed (KeyError: 'x'); its last words are in "),
        (b"", -1, "boot was killed before the system was ready; start again"),
    ],
)
def test_a_boot_that_fails_ends_the_run_with_its_reason(
    manager: Manager, capfd: pytest.CaptureFixture[str], said: bytes, status: int, reason: str
) -> None:
    process = process_of(manager, "boot")
    events.notify(events.ProcessLogStderrEvent(process, 1, said))
    process.exitstatus = status
    process.change_state(ProcessStates.EXITED, expected=False)
    assert manager.failed
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"occ-storage: {reason}")


def test_a_program_that_flaps_is_told_of_once(
    manager: Manager, clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    manager.booted = True
    process = process_of(manager, "worker")
    pauses(manager, process, clock, 5)
    log = manager.configuration.storage_dir / "logs" / "worker.log"
    begun = f"occ-storage: worker has ended and is started again; its last words are in {log}\n"
    assert capfd.readouterr().err == begun
    process.change_state(ProcessStates.RUNNING)
    assert capfd.readouterr().err == "occ-storage: over: worker runs again\n"


def test_commands_reach_supervisor_as_they_are(manager: Manager) -> None:
    configs = [config for group in manager.options.process_group_configs for config in group.process_configs]
    postgres = next(config for config in configs if config.name == "postgres")
    assert str(manager.configuration.storage_dir / "postgres") in shlex.split(postgres.command)


def test_an_error_of_supervisor_is_a_refusal_without_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "hidden")
    path = tmp_path / "manager.conf"
    path.write_text("[supervisord]\nlogfile = %(nonsense)s\n")
    with pytest.raises(ConfigurationError) as caught:
        run(Configuration.from_environment({"STORAGE_DIR": str(tmp_path)}), path)
    assert "nonsense" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert "SECRET_KEY" not in str(caught.value)
