"""The inspection finds defects that no client can see: a missing copy, a damaged copy, and a surplus copy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.installation import Installation, bytes_of, copies, places

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


def test_a_missing_copy_is_seen(installation: Installation) -> None:
    path = copies(installation, DATA)[0]
    path.unlink()
    assert wrong(installation) == {"chunks short of good copies": 1}
    path.write_bytes(DATA)
    assert wrong(installation) == {}


def test_a_damaged_copy_is_seen(installation: Installation) -> None:
    path = copies(installation, DATA)[0]
    path.write_bytes(bytes(len(DATA)))
    assert wrong(installation) == {"chunks short of good copies": 1}
    path.write_bytes(DATA)
    assert wrong(installation) == {}


def test_a_surplus_copy_is_seen(installation: Installation) -> None:
    surplus = next(place for place in places(installation, DATA) if not place.exists())
    surplus.write_bytes(DATA)
    assert wrong(installation) == {"chunks with surplus copies": 1, "false negatives": 1}
    surplus.unlink()
    assert wrong(installation) == {}
