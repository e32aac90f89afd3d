"""A pytest plugin for the fault scenarios: the seed of their random numbers, and the table of their results."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

HEADINGS = ("scenario", "repeats", "acknowledged uploads", "downloads", "lost", "wrong bytes", "recovery, s")


@dataclass(frozen=True)
class Row:
    """The result of one run of one scenario.

    Attributes:
        scenario: the name of the scenario.
        uploads: how many uploads were acknowledged.
        downloads: how many downloads succeeded, during the scenario and by the oracle after it.
        lost: how many files had to be there and could not be read.
        wrong: how many answers were wrong, such as wrong bytes. No fault may cause a wrong answer.
        recovery: seconds from the end of the fault until the system was at rest.
    """

    scenario: str
    uploads: int
    downloads: int
    lost: int
    wrong: int
    recovery: float


SEED = pytest.StashKey[int]()
ROWS = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "fault scenarios")
    group.addoption("--fault-seed", type=int, help="what the scenarios draw from; by default another one each time")
    group.addoption("--fault-report", type=Path, help="a file for the table of scenarios")


def pytest_configure(config: pytest.Config) -> None:
    seed = config.getoption("--fault-seed")
    if side := getattr(config, "workerinput", None):  # This process is a worker of pytest-xdist.
        seed = side["fault_seed"]
    config.stash[SEED] = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    config.stash[ROWS] = []


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give the seed to a worker of pytest-xdist."""
    node.workerinput["fault_seed"] = node.config.stash[SEED]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the rows of a pytest-xdist worker to the controller, which prints the table."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["fault_rows"] = [asdict(row) for row in session.config.stash[ROWS]]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the rows of a pytest-xdist worker that has ended."""
    rows = getattr(node, "workeroutput", {}).get("fault_rows", ())
    node.config.stash[ROWS].extend(Row(**row) for row in rows)


def pytest_report_header(config: pytest.Config) -> str:
    return f"fault seed: {config.stash[SEED]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not rows:
        return
    text = "\n".join(table(rows))
    terminalreporter.section(f"fault scenarios, seed {config.stash[SEED]}")
    terminalreporter.write_line(text)
    if path := config.getoption("--fault-report"):
        path.write_text(f"Seed {config.stash[SEED]}.\n\n{text}\n")


def table(rows: Iterable[Row]) -> list[str]:
    """Make a Markdown table with one line per scenario: sums over its runs, and the longest recovery."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.scenario, []).append(row)
    return [
        "| " + " | ".join(HEADINGS) + " |",
        "|---" + "|--:" * (len(HEADINGS) - 1) + "|",
        *(_line(name, repeats) for name, repeats in by_name.items()),
    ]


def _line(name: str, repeats: Sequence[Row]) -> str:
    sums = [sum(getattr(row, column) for row in repeats) for column in ("uploads", "downloads", "lost", "wrong")]
    cells = [name, len(repeats), *sums, f"{max(row.recovery for row in repeats):.1f}"]
    return "| " + " | ".join(map(str, cells)) + " |"
