"""For every guard that is removed, the scenario of its mutant fails by an assertion that names the symptom."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant, copy_project, mutate, run
from tests.support.system import PROJECT

SCENARIOS = list(dict.fromkeys(mutant.scenario for mutant in MUTANTS))


@pytest.fixture(autouse=True)
def repository() -> None:
    """Skip the tests where git cannot list the files of the project."""
    if subprocess.run(["git", "rev-parse"], cwd=PROJECT, capture_output=True).returncode:
        pytest.skip("the project is no git repository here: what to copy is not known")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_guard_stands_where_the_table_says(mutant: Mutant, tmp_path: Path) -> None:
    (tmp_path / mutant.file).parent.mkdir(parents=True)
    (tmp_path / mutant.file).write_text((PROJECT / mutant.file).read_text())
    mutate(mutant, tmp_path)


@pytest.mark.mutants
def test_an_unchanged_copy_passes(tmp_path: Path) -> None:
    copy_project(tmp_path)
    verdict = run(SCENARIOS, tmp_path)
    assert (verdict.passed, verdict.failures, verdict.broken) == (len(SCENARIOS), {}, {}), verdict.output


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_guard_that_is_taken_out_is_missed(mutant: Mutant, tmp_path: Path) -> None:
    copy_project(tmp_path)
    mutate(mutant, tmp_path)
    verdict = run([mutant.scenario], tmp_path)
    assert verdict.failures and not verdict.broken, f"{mutant.name}:\n{verdict.output}"
    said = "\n".join(verdict.failures.values())
    print(said)
    assert mutant.symptom in said, f"{mutant.name}: it failed for another reason:\n{said}"
