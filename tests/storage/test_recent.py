from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from storage.recent import Recent
from tests.support.system import wait_until


class Sight:
    """The value that a ``Recent`` caches: the number of calls of ``look`` so far.

    A test can make a call of ``look`` wait.
    """

    def __init__(self) -> None:
        self.looks = 0
        self.is_open = threading.Event()
        self.is_open.set()

    def look(self) -> int:
        self.looks += 1
        seen = self.looks
        assert self.is_open.wait(30)
        return seen

    @contextmanager
    def held(self, things: Recent[int], threads: int = 1) -> Iterator[list[int]]:
        """Run the ``with`` block while ``threads`` threads ask ``things`` for the value, and one of them waits in
        ``look``.

        Yields:
            A list. When the block has ended, the list has the values that the threads got.
        """
        seen: list[int] = []
        together = threading.Barrier(threads)

        def come() -> None:
            together.wait(30)
            seen.append(things.see(self.look))

        before, coming = self.looks, [threading.Thread(target=come) for _ in range(threads)]
        self.is_open.clear()
        for thread in coming:
            thread.start()
        wait_until(lambda: self.looks > before, 10)
        try:
            yield seen
        finally:
            self.is_open.set()
            for thread in coming:
                thread.join()


@pytest.fixture
def sight() -> Sight:
    return Sight()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("storage.recent.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_look_is_good_for_a_while(sight: Sight, clock: list[float]) -> None:
    things: Recent[int] = Recent(seconds=2)
    assert [things.see(sight.look), things.see(sight.look)] == [1, 1]
    clock[0] += 1
    assert things.see(sight.look, seconds=0.5) == 2, "not for this one"
    clock[0] += 2.1
    assert things.see(sight.look) == 3
    things.forget()
    assert things.see(sight.look) == 4
    assert things.last == 4


def test_what_does_not_fit_is_not_taken(sight: Sight, clock: list[float]) -> None:
    things: Recent[int] = Recent(seconds=2)
    things.keep(sight.look)
    assert things.see(sight.look, fits=lambda seen: seen == 2) == 2
    assert things.see(sight.look, fits=lambda seen: seen == 1) == 3, "what is there now is, whatever it is"


def test_those_who_come_while_one_looks_go_on_with_what_was_seen_last(sight: Sight, clock: list[float]) -> None:
    things: Recent[int] = Recent(seconds=60)
    things.keep(sight.look)
    clock[0] += 61
    seen: list[int] = []
    another = threading.Thread(target=lambda: seen.append(things.see(sight.look)))
    with sight.held(things):
        another.start()
        another.join(10)
        assert seen == [1], "it does not wait"
    another.join()
    assert things.see(sight.look) == 2


def test_many_who_have_nothing_to_go_on_with_look_once(sight: Sight) -> None:
    with sight.held(Recent(seconds=60), threads=8) as seen:
        pass
    assert seen == [1] * 8


def test_nobody_waits_for_ever_for_one_that_hangs(sight: Sight) -> None:
    things: Recent[int] = Recent(seconds=0.01)
    with sight.held(things):
        assert things.see(lambda: -1) == -1


def test_a_look_from_before_a_change_is_not_kept(sight: Sight) -> None:
    things: Recent[int] = Recent(seconds=60)
    with sight.held(things):
        things.forget()
    assert things.last is None
    assert things.see(sight.look) == 2


def test_a_look_is_good_from_its_end_on(clock: list[float]) -> None:
    things: Recent[int] = Recent(seconds=2)

    def slow() -> int:
        clock[0] += 5
        return 1

    things.keep(slow)
    assert things.see(lambda: 2) == 1


def test_a_look_that_fails_is_nobody_elses(sight: Sight) -> None:
    things: Recent[int] = Recent(seconds=60)

    def fail() -> int:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        things.see(fail)
    assert things.see(sight.look) == 1
