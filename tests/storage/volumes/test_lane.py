from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.exceptions import ReplicaMissing, VolumeOffline, VolumeUnasked
from storage.volumes import Identity, Lane, MemoryVolume
from storage.volumes.lane import BACK_OFF, FAILURES_TO_OPEN, Breaker
from tests.support.system import wait_until

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


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
    # The breaker opened once, for the first back-off, and not once for each call.
    wait_until(lambda: not lane.breaker.is_open, BACK_OFF[0] + 0.5)
    go_on.set()


def test_a_slow_volume_has_the_time_it_needs() -> None:
    lane = Lane(MemoryVolume("slow"), threads=1, timeout=0.5)
    futures = [lane.submit(time.sleep, 0.1) for _ in range(12)]  # The last call ends long after the time limit.
    assert [lane.result(future) for future in futures] == [None] * 12


# -- a node that comes back -------------------------------------------------


def away_and_back() -> tuple[Lane, MemoryVolume, Clock]:
    """A lane whose breaker is half-way through the longest back-off; its volume, which answers again; and the clock."""
    volume, clock = MemoryVolume(), Clock()
    volume.create(Identity("cluster", "node_000", "node"))
    lane = Lane(volume)
    lane.breaker = Breaker(clock)
    volume.online = False
    for back_off in (0, *BACK_OFF):
        clock.now += back_off
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(VolumeOffline):
                lane.call(volume.space)
    clock.now += BACK_OFF[-1] / 2
    assert lane.breaker.is_open
    volume.online = True
    return lane, volume, clock


def test_a_look_asks_although_the_breaker_is_open_and_its_success_closes_it() -> None:
    lane, volume, _ = away_and_back()
    with pytest.raises(VolumeOffline, match="not asked"):
        lane.call(volume.space)
    assert lane.look(volume.space) == volume.space()
    assert lane.breaker.is_closed
    assert lane.call(volume.space) == volume.space()


def test_a_look_at_what_is_still_away_does_not_prolong_the_back_off() -> None:
    lane, volume, clock = away_and_back()
    volume.online = False
    for _ in range(10):
        with pytest.raises(VolumeOffline):
            lane.look(volume.space)
    clock.now += BACK_OFF[-1] / 2
    assert not lane.breaker.is_open


def test_a_look_is_not_content_with_what_a_kernel_answers_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    lane, volume, _ = away_and_back()

    def hangs() -> Identity:
        raise VolumeOffline("no medium")

    monkeypatch.setattr(volume, "identity", hangs)
    monkeypatch.setattr(volume, "space", lambda: "from memory")
    with pytest.raises(VolumeOffline, match="no medium"):
        lane.look(volume.space)
    assert lane.breaker.is_open


def test_while_a_look_hangs_no_other_look_waits_or_takes_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = MemoryVolume()
    volume.create(Identity("cluster", "node_000", "node"))
    lane = Lane(volume, timeout=0.3)
    lane.breaker.trip()
    go_on, entered = threading.Event(), []

    def hangs() -> None:
        entered.append(1)
        go_on.wait(30)

    try:
        with pytest.raises(VolumeOffline, match="no answer"):
            lane.look(hangs)
        begun = time.monotonic()
        for _ in range(20):
            with pytest.raises(VolumeOffline, match="earlier look"):
                lane.look(hangs)
        assert time.monotonic() - begun < 0.3
        assert len(entered) == 1
        # With this back-off, the breaker tries again at once.
        monkeypatch.setattr("storage.volumes.lane.BACK_OFF", (0.0,))
        with pytest.raises(VolumeOffline, match="no answer"):
            lane.look(hangs)
        assert len(entered) == 2, "a thread that hangs for ever does not hide a disk that was replaced"
    finally:
        go_on.set()
    wait_until(lambda: lane.breaker.is_closed, 5)


def test_of_looks_at_once_one_is_made() -> None:
    lane, _, _ = away_and_back()
    go_on, entered = threading.Event(), threading.Event()

    def slow() -> str:
        entered.set()
        go_on.wait(30)
        return "seen"

    with ThreadPoolExecutor(1) as other:
        first = other.submit(lane.look, slow)
        assert entered.wait(5)
        with pytest.raises(VolumeOffline, match="earlier look"):
            lane.look(slow)
        go_on.set()
        assert first.result(5) == "seen"


def test_the_news_that_the_node_is_back_lets_the_next_call_decide_once() -> None:
    lane, volume, _ = away_and_back()
    lane.returned(NOON)
    assert lane.call(volume.space) == volume.space()
    assert lane.breaker.is_closed
    lane.breaker.trip()
    lane.returned(NOON)
    assert lane.breaker.is_open, "this news is old"
    lane.returned(None)
    assert lane.breaker.is_open, "a node that is away has not come back"
    lane.returned(NOON + timedelta(seconds=30))
    assert not lane.breaker.is_open


def test_a_call_from_before_the_return_costs_the_shortest_back_off() -> None:
    lane, _, clock = away_and_back()
    lane.returned(NOON)
    lane.breaker.failed()
    assert lane.breaker.is_open
    clock.now += BACK_OFF[0]
    assert not lane.breaker.is_open


@given(st.lists(st.sampled_from(["failed", "succeeded", "trip", "half_open", "second"]), max_size=60))
def test_a_breaker_is_open_for_its_back_off_at_most_and_only_after_failures(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(clock)
    failed_at: float | None = None
    for step in steps:
        if step == "second":
            clock.now += 1
        else:
            getattr(breaker, step)()
        if step in ("failed", "trip"):
            failed_at = clock.now
        if step in ("succeeded", "half_open"):
            assert not breaker.is_open
        if step == "succeeded":
            assert breaker.is_closed
            failed_at = None
        if breaker.is_open:
            assert not breaker.is_closed
            assert failed_at is not None
            assert clock.now - failed_at < BACK_OFF[-1]


# -- a process without threads ----------------------------------------------


def test_a_process_that_can_start_no_thread_says_nothing_about_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = MemoryVolume()
    volume.create(Identity("cluster", "node_000", "node"))
    lane = Lane(volume)

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(VolumeUnasked):
                lane.call(volume.space)
    assert lane.breaker.is_closed
    assert lane.call(volume.space) == volume.space()
