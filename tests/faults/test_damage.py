"""Bytes on the disks are damaged: no client ever gets wrong bytes, and one good copy is enough to mend the others.

The tests share one installation. Each test has files of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.disks import DAMAGES, copies, flip, quarantined
from tests.faults.journal import Attempt, Outcome
from tests.support.installation import PATIENCE, Installation, bytes_of, log_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 16384
CHUNKS = 12  # These are more chunks than a download reads before it sends its headers.


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(CHUNK_SIZE=str(CHUNK_SIZE))


def stored(installation: Installation, label: str) -> tuple[Attempt, list[bytes]]:
    """Upload a file with three copies of each chunk. Return the attempt and the chunks."""
    data = bytes_of(label, CHUNKS * CHUNK_SIZE - 100)
    attempt = installation.journal.upload(data, label)
    assert attempt.status == 201, attempt
    return attempt, [data[start : start + CHUNK_SIZE] for start in range(0, len(data), CHUNK_SIZE)]


def in_order_of_reading(installation: Installation, chunk: bytes) -> list[str]:
    """Return the nodes that have a chunk, in the order in which a download asks them."""
    held = copies(installation, chunk)
    chunk_hash = next(iter(held.values())).name
    status, route = installation.journal.ask(f"/route/{chunk_hash}")
    assert status == 200, route
    return [candidate["node_id"] for candidate in route["candidates"] if candidate["node_id"] in held]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_copies_that_are_left_serve_and_mend(installation: Installation, damage: str) -> None:
    attempt, chunks = stored(installation, f"some copies {damage}")
    before = len(quarantined(installation))
    for chunk, bad in ((chunks[0], 1), (chunks[-1], 2)):
        held = copies(installation, chunk)
        for node_id in in_order_of_reading(installation, chunk)[:bad]:
            DAMAGES[damage](held[node_id])
    download = installation.journal.download(attempt.file_hash)
    assert download.outcome is Outcome.ACKNOWLEDGED, download
    # A download need not notice a copy that is missing. The verification of the file notices every missing copy.
    installation.journal.ask(f"/verify/{attempt.file_hash}?deep=true")
    installation.settle(f"one of three copies {damage}, two of another chunk's")
    assert len(quarantined(installation)) - before == (0 if damage == "removed" else 3)


@pytest.mark.parametrize("place", ["first", "last"])
def test_when_all_copies_are_bad_the_error_is_clean_and_nothing_is_thrown_away(
    installation: Installation, place: str
) -> None:
    attempt, chunks = stored(installation, f"all copies of the {place} chunk flipped")
    chunk = chunks[0 if place == "first" else -1]
    before = quarantined(installation)
    held = copies(installation, chunk)
    for path in held.values():
        flip(path)
    bad = {node_id: path.read_bytes() for node_id, path in held.items()}

    download = installation.journal.download(attempt.file_hash)
    if place == "first":
        assert (download.status, download.outcome) == (503, Outcome.REFUSED), download
    else:
        assert "cut after" in download.detail, download

    name = next(iter(held.values())).name

    def judged() -> bool:
        said = log_of(installation.system, "maintenance")
        found_bad = any("replica.all_corrupt" in line and name in line for line in said.splitlines())
        return found_bad or quarantined(installation) != before

    wait_until(judged, PATIENCE, lambda: f"nobody judged {name}")
    assert quarantined(installation) == before, "bad copies were thrown away, and no good one is left"
    assert {node_id: path.read_bytes() for node_id, path in copies(installation, chunk).items()} == bad

    next(iter(held.values())).write_bytes(chunk)  # An operator restores a copy from a backup.
    wait_until(lambda: installation.journal.download(attempt.file_hash).outcome is Outcome.ACKNOWLEDGED, PATIENCE)
    installation.journal.ask(f"/verify/{attempt.file_hash}?deep=true")
    installation.settle("all 3 copies of a chunk flipped, one restored")


def test_bytes_that_rot_in_staging_never_become_a_file(installation: Installation) -> None:
    staging = installation.system.storage_dir / "staging"

    def rot() -> None:
        wait_until(lambda: any(path.stat().st_size for path in staging.iterdir()), PATIENCE)
        for path in staging.iterdir():
            with path.open("r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(bytes([first[0] ^ 1]))

    attempt = installation.journal.upload(bytes_of("rots in staging", 8 << 20), "rots in staging", midway=rot)
    assert attempt.status == 503, attempt
    assert installation.journal.ask(f"/files/{attempt.file_hash}")[0] == 404
    installation.settle("staging flipped while a body arrives")
