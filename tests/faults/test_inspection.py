"""The inspection finds defects that no client can see: a missing copy, a damaged copy, and a surplus copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.installation import Installation, bytes_of, copies

pytestmark = [pytest.mark.system, pytest.mark.faults]

DATA = bytes_of("inspected", 5000)


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    made = make_installation()
    assert made.journal.upload(DATA, "inspected").status == 201
    return made


def wrong(installation: Installation) -> dict[str, int]:
    """Count the findings of each rule that is broken now."""
    _, findings = installation.findings(within=0)
    return {rule: len(broken) for rule, broken in findings.items() if broken}


def test_a_missing_copy_is_seen(installation: Installation, tmp_path: Path) -> None:
    path = copies(installation, DATA)[0]
    shutil.move(path, tmp_path)
    assert wrong(installation) == {"chunks short of good copies": 1}
    shutil.move(tmp_path / path.name, path)
    assert wrong(installation) == {}


def test_a_damaged_copy_is_seen(installation: Installation) -> None:
    path = copies(installation, DATA)[0]
    path.write_bytes(bytes(len(DATA)))
    assert wrong(installation) == {"chunks short of good copies": 1}
    path.write_bytes(DATA)
    assert wrong(installation) == {}


def test_a_surplus_copy_is_seen(installation: Installation) -> None:
    held = copies(installation, DATA)
    folders = {path.parent for path in held}
    (extra, *_) = set(installation.system.storage_dir.glob(f"nodes/*/chunks/{held[0].parent.name}")) - folders
    shutil.copy(held[0], extra)
    assert wrong(installation) == {"chunks with surplus copies": 1, "false negatives": 1}
    (extra / held[0].name).unlink()
    assert wrong(installation) == {}
