"""The parts of the benchmarks' report about ceilings, bottlenecks and memory."""

from pathlib import Path

import pytest

from benchmarks.service.ceilings import HASHING, SENDING, ceilings, copies, write_durably, writing
from benchmarks.service.machine import Busy, watch_busy
from benchmarks.service.memory import Memory, Transfer
from benchmarks.service.workloads import GIB, KIB, MIB


def test_three_copies_are_a_third_of_the_best() -> None:
    large, small = 256 * KIB, 64 * KIB
    found = {writing(large, 1): 120.0, writing(large, 4): 300.0, writing(large, 16): 270.0}
    found |= {writing(small, 1): 30.0, writing(small, 4): 60.0, writing(small, 16): 90.0}
    assert copies(found, large, 3) == ("durable files of 256 KiB, 4 threads, 3 copies", 100.0)
    assert copies(found, small, 3) == ("durable files of 64 KiB, 16 threads, 3 copies", 30.0)


def test_every_ceiling_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    sizes = (64 * KIB, 256 * KIB)
    found = ceilings(tmp_path, sizes, amount=8)
    assert set(found) == {HASHING, SENDING, *(writing(size, threads) for size in sizes for threads in (1, 4, 16))}
    assert min(found.values()) > 0
    assert not list(tmp_path.iterdir())


def test_a_durable_file_has_its_bytes_and_its_name(tmp_path: Path) -> None:
    write_durably(tmp_path / "0", b"bytes")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"0": b"bytes"}


@pytest.mark.parametrize(
    ("busy", "said"),
    [
        (Busy((99.0, 98.0), 40.0), "cores"),
        (Busy((99.0, 40.0), 95.0), "disk"),
        (Busy((99.0, 40.0), None), "neither, cores nearest"),
        (Busy((50.0, 40.0), 60.0), "neither, disk nearest"),
    ],
)
def test_what_is_saturated(busy: Busy, said: str) -> None:
    assert busy.saturated() == said


def test_shares_are_percent(tmp_path: Path) -> None:
    busy = watch_busy(tmp_path)()
    assert all(0 <= share <= 100 for share in (*busy.cores, busy.disk or 0))


def transfer(size: int, direction: str, api: float, worker: float) -> Transfer:
    return Transfer(size, direction, 1.0, {"api": api, "worker": worker})


def test_memory_is_held_to_its_limits_by_program_and_direction() -> None:
    small = (transfer(MIB, "up", 90, 80), transfer(MIB, "down", 90, 80))
    kept = Memory([*small, transfer(GIB, "up", 109, 80), transfer(GIB, "down", 95, 80)])
    assert list(kept.verdicts()) == [
        "- api: 109 MiB at most, +19 MiB for the large file: kept",
        "- worker: 80 MiB at most, +0 MiB for the large file: kept",
    ]
    grown = Memory([*small, transfer(GIB, "up", 90, 101), transfer(GIB, "down", 151, 80)])
    assert [line.rpartition(": ")[2] for line in grown.verdicts()] == ["NOT KEPT", "NOT KEPT"]
