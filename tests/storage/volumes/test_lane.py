from __future__ import annotations

import threading
import time

import pytest

from storage.exceptions import ReplicaMissing, VolumeOffline
from storage.volumes import Lane, MemoryVolume
from storage.volumes.lane import BACK_OFF, FAILURES_TO_OPEN, Breaker
from tests.system.conftest import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def offline() -> None:
    raise VolumeOffline("gone")


def test_the_breaker_opens_after_failures_in_a_row_and_closes_after_a_success() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    seen = []
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed()
        seen.append(breaker.is_open)
    assert seen == [False, False, True]
    clock.now += 1.1
    seen.append(breaker.is_open)
    breaker.succeeded()
    breaker.failed()
    seen.append(breaker.is_open)
    assert seen[3:] == [False, False], "after the back-off one call may try, and its success forgives"


def test_the_back_off_grows() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.trip()
    clock.now += 1.1
    breaker.failed()
    clock.now += 1.1
    assert breaker.is_open, "the second back-off is longer than the first"


def test_a_failing_volume_is_soon_refused_without_being_asked() -> None:
    lane = Lane(MemoryVolume())
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(VolumeOffline):
            lane.call(offline)
    asked = threading.Event()
    with pytest.raises(VolumeOffline, match="not asked"):
        lane.call(asked.set)
    assert not asked.is_set()


def test_a_missing_replica_is_an_answer_not_a_failure() -> None:
    lane = Lane(MemoryVolume())

    def missing() -> None:
        raise ReplicaMissing("x")

    for _ in range(FAILURES_TO_OPEN + 1):
        with pytest.raises(ReplicaMissing):
            lane.call(missing)
    assert not lane.breaker.is_open


def test_a_hung_volume_holds_its_own_threads_only_and_opens_its_breaker() -> None:
    release = threading.Event()
    hung = Lane(MemoryVolume("hung"), threads=1, timeout=0.05)
    healthy = Lane(MemoryVolume("healthy"), threads=1, timeout=5)
    try:
        started = time.monotonic()
        with pytest.raises(VolumeOffline, match="no answer"):
            hung.call(release.wait)
        assert healthy.call(lambda: "fine") == "fine"
        with pytest.raises(VolumeOffline, match="not asked"):
            hung.call(lambda: None)
        assert time.monotonic() - started < 5
    finally:
        release.set()


def test_of_many_calls_to_a_hung_volume_none_waits_longer_than_the_first() -> None:
    go_on = threading.Event()
    lane = Lane(MemoryVolume("hung"), threads=2, timeout=0.5)
    futures = [lane.submit(go_on.wait, 30) for _ in range(12)]
    begun = time.monotonic()
    for future in futures:
        with pytest.raises(VolumeOffline):
            lane.result(future)
    assert time.monotonic() - begun < 12 * 0.5 / 2
    # It opened once, for the first back-off, and not once for each of them.
    wait_until(lambda: not lane.breaker.is_open, BACK_OFF[0] + 0.5)
    go_on.set()


def test_a_slow_volume_has_the_time_it_needs() -> None:
    lane = Lane(MemoryVolume("slow"), threads=1, timeout=0.5)
    futures = [lane.submit(time.sleep, 0.1) for _ in range(12)]  # the last one ends long after the limit
    assert [lane.result(future) for future in futures] == [None] * 12
