"""The judgement of registers: an honest store is believed whatever overlaps, and each kind of lie is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.journal import Outcome
from tests.faults.registers import Change, Look, Registers, Version

A, R, U = Outcome.ACKNOWLEDGED, Outcome.REFUSED, Outcome.UNKNOWN
KEY, OTHER = "key", "other"
ONE, TWO, THREE = (Version(etag, size, f"digest of {etag}") for size, etag in enumerate(("one", "two", "three"), 1))


def change(version: Version | None, begun: float, ended: float, outcome: Outcome = A, key: str = KEY) -> Change:
    return Change("PutObject" if version else "DeleteObject", {key: version}, begun=begun, ended=ended, outcome=outcome)


def copy(begun: float, ended: float, outcome: Outcome = U) -> Change:
    return Change("CopyObject", {KEY: None}, OTHER, begun=begun, ended=ended, outcome=outcome)


def look(version: Version | None, begun: float, ended: float, *, listing: bool = False, key: str = KEY) -> Look:
    return Look("ListObjectsV2" if listing else "GetObject", key, {key: version}, begun=begun, ended=ended, outcome=A)


def kinds(changes: list[Change], *looks: Look) -> list[str]:
    return [violation.partition(":")[0] for violation in Registers(changes, looks).violations()]


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ([], {None}),
        ([change(ONE, 0, 1)], {ONE}),
        ([change(ONE, 0, 1, U)], {None, ONE}),
        ([change(ONE, 0, 1, R)], {None}),
        ([change(ONE, 0, 1), change(TWO, 2, 3)], {TWO}),
        ([change(ONE, 0, 2), change(TWO, 1, 3)], {ONE, TWO}),
        ([change(ONE, 0, 1), change(TWO, 2, 3, U)], {ONE, TWO}),
        ([change(ONE, 0, 1, U), change(TWO, 2, 3)], {ONE, TWO}),  # The first change may still take effect later.
        ([change(ONE, 0, 1), change(None, 2, 3)], {None}),
        ([change(ONE, 0, 1), change(None, 2, 3, U)], {None, ONE}),
        ([change(ONE, 0, 1), change(None, 2, 3, R)], {ONE}),
        ([change(ONE, 0, 1), change(TWO, 2, 8), change(None, 4, 6)], {None, TWO}),
        ([change(ONE, 0, 1), change(TWO, 9, 12)], {ONE, TWO}),  # The look overlaps the second change.
        ([change(ONE, 0, 1), change(TWO, 11, 12)], {ONE}),
        ([change(ONE, 0, 1, A, OTHER), change(TWO, 2, 3), copy(4, 5)], {ONE, TWO}),
        ([change(ONE, 0, 1, A, OTHER), change(THREE, 2, 3, A, OTHER), copy(4, 5)], {None, THREE}),
        ([change(ONE, 0, 1, A, OTHER), copy(4, 5, R)], {None}),
    ],
)
@pytest.mark.parametrize("listing", [False, True], ids=["a GET", "a listing"])
def test_what_may_be_seen_follows_from_what_was_said(
    changes: list[Change], possible: set[Version | None], listing: bool
) -> None:
    seen = {version for version in (None, ONE, TWO, THREE) if not kinds(changes, look(version, 9, 10, listing=listing))}
    assert seen == possible


def test_what_was_seen_has_taken_effect() -> None:
    changes = [change(ONE, 0, 1), change(TWO, 2, 3, U)]
    assert kinds(changes, look(ONE, 4, 5), look(TWO, 6, 7)) == []
    assert kinds(changes, look(TWO, 4, 5), look(ONE, 6, 7)) == ["stale"]
    assert kinds([*changes, change(THREE, 8, 9)], look(TWO, 4, 5), look(TWO, 10, 11)) == ["stale"]
    # Two uploads of the same bytes: nobody knows which of them was seen.
    twice = [change(TWO, 0, 1, U), change(TWO, 2, 3, U), change(ONE, 8, 9)]
    assert kinds(twice, look(TWO, 4, 5), look(TWO, 10, 11)) == []


def test_copies_in_a_circle_bring_only_what_was_there() -> None:
    there_and_back = [copy(2, 3), Change("CopyObject", {OTHER: None}, KEY, begun=2, ended=3)]
    assert kinds([change(ONE, 0, 1), *there_and_back], look(ONE, 4, 5, key=OTHER)) == []
    assert kinds([change(ONE, 0, 1), *there_and_back], look(TWO, 4, 5, key=OTHER)) != []
    assert kinds(there_and_back, look(ONE, 4, 5)) != []


WRITTEN = [change(ONE, 0, 1), change(TWO, 2, 3)]


@pytest.mark.parametrize(
    ("changes", "lie", "kind"),
    [
        (WRITTEN, look(None, 4, 5), "lost"),
        (WRITTEN, look(None, 4, 5, listing=True), "not listed"),
        (WRITTEN, look(ONE, 4, 5), "stale"),
        (WRITTEN, look(ONE, 4, 5, listing=True), "stale"),
        (WRITTEN, look(replace(TWO, digest=ONE.digest), 4, 5), "wrong answer"),  # The bytes do not fit the ETag.
        (WRITTEN, look(replace(TWO, etag=ONE.etag), 2, 5), "wrong answer"),
        (WRITTEN, look(replace(TWO, size=77), 4, 5, listing=True), "wrong answer"),
        (WRITTEN, look(THREE, 4, 5), "wrong answer"),
        ([*WRITTEN, change(THREE, 0, 1, A, OTHER)], look(THREE, 4, 5), "wrong answer"),
        ([*WRITTEN, change(None, 4, 5)], look(TWO, 6, 7), "resurrected"),
        ([*WRITTEN, change(None, 4, 5)], look(TWO, 6, 7, listing=True), "resurrected"),
        (WRITTEN, look(TWO, 0, 1), "wrong answer"),  # The look ended before the upload began.
    ],
)
def test_each_lie_has_its_kind(changes: list[Change], lie: Look, kind: str) -> None:
    assert kinds(changes, lie) == [kind]


# -- a simulated store ---------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One request to the simulated store: it takes effect after ``delay``, and its answer comes after ``length``.

    A request whose delay is longer than its length has no answer before it takes effect: its outcome is unknown.
    """

    kind: str
    keys: tuple[str, str]
    begun: float
    delay: float
    length: float
    is_answered: bool


class Store:
    """An honest store: each request takes effect at one moment."""

    def __init__(self, steps: list[Step]) -> None:
        self.changes: list[Change] = []
        self.looks: list[Look] = []
        self._held: dict[str, Version | None] = {}
        for number, step in enumerate(sorted(steps, key=lambda step: step.begun + step.delay)):
            self._take_effect(step, Version(f"{number}", number, f"digest {number}"))

    def _take_effect(self, step: Step, new: Version) -> None:
        key, source = step.keys
        is_known = step.is_answered and step.delay <= step.length
        outcome, ended = (A if is_known else U), step.begun + step.length
        if step.kind in ("get", "list"):
            seen = {name: self._held.get(name) for name in ([key] if step.kind == "get" else [KEY, OTHER])}
            self.looks.append(Look(step.kind, key, seen if is_known else {}, begun=step.begun, ended=ended))
            return
        copied = self._held.get(source)
        if step.kind == "copy" and is_known:
            self.looks.append(Look("copy", source, {source: copied}, begun=step.begun, ended=ended))
        outcome = R if is_known and step.kind == "copy" and copied is None else outcome
        brought = {"put": new, "delete": None, "copy": copied}[step.kind]
        told = brought if is_known or step.kind != "copy" else None
        origin = source if step.kind == "copy" else None
        self.changes.append(
            Change(step.kind, {key: told}, origin, begun=step.begun, ended=ended, outcome=outcome),
        )
        if step.kind != "copy" or copied is not None:
            self._held[key] = brought

    def violations(self) -> list[str]:
        return list(Registers(self.changes, self.looks).violations())


def steps(*, delays: st.SearchStrategy[float], answered: st.SearchStrategy[bool]) -> st.SearchStrategy[list[Step]]:
    step = st.builds(
        Step,
        kind=st.sampled_from(["put", "put", "delete", "copy", "get", "list"]),
        keys=st.sampled_from([(KEY, OTHER), (OTHER, KEY)]),
        begun=st.floats(0, 20),
        delay=delays,
        length=st.floats(5, 10),
        is_answered=answered,
    )
    return st.lists(step, max_size=25)


@given(steps(delays=st.floats(0, 5) | st.floats(0, 100), answered=st.booleans()))
def test_an_honest_store_is_believed(some: list[Step]) -> None:
    assert Store(some).violations() == []


ANSWERED = steps(delays=st.floats(0, 5), answered=st.just(True))
LATER = 100.0  # A moment at which all answers have come.
Lie = Callable[[list[Change]], Look]


def lose(changes: list[Change]) -> Look:
    changes.append(change(ONE, LATER, LATER + 1))
    return look(None, LATER + 2, LATER + 3)


def leave_out(changes: list[Change]) -> Look:
    changes.append(change(ONE, LATER, LATER + 1))
    return look(None, LATER + 2, LATER + 3, listing=True)


def resurrect(changes: list[Change]) -> Look:
    changes += [change(ONE, LATER, LATER + 1), change(None, LATER + 2, LATER + 3)]
    return look(ONE, LATER + 4, LATER + 5)


def be_stale(changes: list[Change]) -> Look:
    changes += [change(ONE, LATER, LATER + 1), change(TWO, LATER + 2, LATER + 3)]
    return look(ONE, LATER + 4, LATER + 5)


def mix(changes: list[Change]) -> Look:
    changes += [change(ONE, LATER, LATER + 3), change(TWO, LATER, LATER + 3)]
    return look(replace(ONE, digest="of the first half of one and the second half of two"), LATER + 1, LATER + 5)


@pytest.mark.parametrize(
    ("lie", "kind"),
    [(lose, "lost"), (leave_out, "not listed"), (resurrect, "resurrected"), (be_stale, "stale"), (mix, "wrong answer")],
)
@given(some=ANSWERED)
def test_one_lie_after_an_honest_life_is_seen(lie: Lie, kind: str, some: list[Step]) -> None:
    store = Store(some)
    store.looks.append(lie(store.changes))
    (violation,) = store.violations()
    assert violation.startswith(kind)


def test_a_change_without_an_answer_never_ends() -> None:
    assert change(ONE, 0, 1, U).took_effect_by == math.inf
