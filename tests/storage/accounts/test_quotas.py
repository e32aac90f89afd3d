"""Quotas: an owner never stores more than the quota allows, however many uploads come at once (ADR 22)."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from storage.exceptions import ByteQuotaExceeded, FileQuotaExceeded, StorageError
from storage.models import AcceptedFile, Content, File, Job, Quota, Tally, Upload, Usage, nobody, tally
from storage.models.statements import prepared
from storage.services import catalogue, intake, sweep
from storage.services.intake import Reception
from tests.faults import inspection
from tests.support.api import send, workers
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import keys_on, owner
from tests.support.quotas import accept, limited
from tests.support.threads import at_once

__all__ = ["keys_on", "send", "workers"]

REFUSALS = (ByteQuotaExceeded, FileQuotaExceeded)


def require_recount(user: User) -> Usage:
    """Check that a user's usage equals a count of the rows of the user's files, and return the usage."""
    used = Usage.of(user.pk)
    sizes = list(File.objects.filter(owner=user).values_list("size", flat=True))
    assert (used.files, used.bytes) == (len(sizes), sum(sizes))
    return used


# -- what counts towards a quota ---------------------------------------------


def test_a_file_that_does_not_fit_is_refused_and_leaves_nothing(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=1000)
    accept(ann, b"x" * 600)
    with pytest.raises(ByteQuotaExceeded, match="quota is 1000 bytes, 600 are used, and 401 more were asked for"):
        accept(ann, b"y" * 401, "b")
    accept(ann, b"y" * 400, "b")
    assert require_recount(ann) == Usage(files=2, bytes=1000)
    assert Upload.objects.count() == Content.objects.count() == 2
    accept(owner("bob"), b"z" * 5000)


def test_as_many_files_as_the_quota_allows(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_files=2)
    accept(ann, b"1")
    accept(ann, b"", "empty")
    for data in (b"3", b""):
        with pytest.raises(FileQuotaExceeded, match="quota is 2 files, 2 are stored"):
            accept(ann, data, "c")
    assert require_recount(ann) == Usage(files=2, bytes=1)


def test_room_that_was_just_freed_is_there(cluster: ClusterUnderTest) -> None:
    """A process remembers the usage of an owner for a moment. The remembered usage alone refuses no upload."""
    ann = limited(owner("ann"), max_files=1)
    accept(ann, b"1")
    cluster.ingest()
    with pytest.raises(FileQuotaExceeded):
        accept(ann, b"2", "b")
    catalogue.delete(File.objects.get(owner=ann))
    accept(ann, b"2", "b")
    assert require_recount(ann) == Usage(files=1, bytes=1)


def test_a_small_body_needs_no_query_for_the_usage(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = limited(owner("ann"), max_files=10)
    looks: list[object] = []
    standing = Quota.standing

    def counted(owner_id: int, name: str | None) -> Any:
        looks.append(name)
        return standing(owner_id, name)

    monkeypatch.setattr(Quota, "standing", counted)
    for _ in range(3):
        Reception(ann, declared_size=1, name="b")
    assert len(looks) == 1
    Reception(ann, declared_size=intake.HELD_BYTES + 1, name="b").abandon()
    assert len(looks) == 2, "a large body must not come in vain"


def test_the_same_file_again_costs_nothing_and_another_name_costs_a_file(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=1500, max_files=2)
    accept(ann, b"x" * 1000, "a")
    assert not accept(ann, b"x" * 1000, "a").created
    assert not accept(ann, b"x" * 1000, "a", declared=0).created, "of unknown length"
    assert not accept(ann, b"x" * 1000, None).created, "without a name"
    with pytest.raises(ByteQuotaExceeded):
        accept(ann, b"x" * 1000, "b")
    with pytest.raises(ByteQuotaExceeded):
        accept(ann, b"y" * 1000, "a")
    limited(ann, max_bytes=2000, max_files=2)
    assert accept(ann, b"x" * 1000, "b").created
    assert require_recount(ann) == Usage(files=2, bytes=2000)
    assert not accept(ann, b"x" * 1000, "a").created, "the quota is full, and the file is there"


def test_bytes_that_another_owner_has_cost_as_much_as_any(cluster: ClusterUnderTest) -> None:
    accept(owner("bob"), b"x" * 1000)
    ann = limited(owner("ann"), max_bytes=999)
    with pytest.raises(ByteQuotaExceeded) as known:
        accept(ann, b"x" * 1000)
    with pytest.raises(ByteQuotaExceeded) as fresh:
        accept(ann, b"y" * 1000)
    assert str(known.value) == str(fresh.value)


def test_a_deletion_frees_at_once(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=1000, max_files=1)
    accepted = accept(ann, b"x" * 1000)
    with pytest.raises(FileQuotaExceeded):
        accept(ann, b"y")
    catalogue.delete(File.objects.get(pk=accepted.file_id))
    assert require_recount(ann) == Usage(0, 0)
    accept(ann, b"y" * 1000)


def test_uploads_that_come_to_nothing_cost_nothing(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=1 << 20)
    with Reception(ann, declared_size=600_000, name="a") as reception:
        reception.write(content_of(100))  # The client goes away before the body is complete.
    assert require_recount(ann) == Usage(0, 0)
    withdrawn = accept(ann, b"x" * 5000, "b")
    assert require_recount(ann) == Usage(1, 5000)
    assert intake.withdraw(withdrawn)
    assert require_recount(ann) == Usage(0, 0)
    failed = accept(ann, b"y" * 5000, "c")
    Job.objects.filter(pk=failed.job_id).update(state=Job.State.FAILED, finished_at="2020-01-01T00:00:00Z")
    assert require_recount(ann) == Usage(1, 5000), "it is kept for a while"
    sweep.sweep()
    assert require_recount(ann) == Usage(0, 0)


def test_files_that_become_one_cost_one(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=2000, max_files=2)
    first, second = accept(ann, b"x" * 1000, "a"), accept(ann, b"x" * 1000, "b")
    files = [File.objects.select_related("content").get(pk=accepted.file_id) for accepted in (first, second)]
    catalogue.rename(files[0], name="other")
    assert require_recount(ann) == Usage(2, 2000)
    catalogue.rename(*files, name="c")
    assert require_recount(ann) == Usage(1, 1000)


def test_files_that_are_given_count_for_their_new_owner(cluster: ClusterUnderTest) -> None:
    limited(nobody(), max_bytes=5000)
    ann = limited(owner("ann"), max_bytes=1500)
    accept(nobody(), b"x" * 1000, "a")
    accept(nobody(), b"y" * 1000, "b")
    accept(ann, b"x" * 1000, "a")
    assert catalogue.give_all(nobody(), ann) == 2
    assert (require_recount(nobody()), require_recount(ann)) == (Usage(0, 0), Usage(2, 2000))
    with pytest.raises(ByteQuotaExceeded):
        accept(ann, b"", "c")
    accept(nobody(), b"z" * 5000, "c")


def test_the_fault_scenarios_see_a_usage_that_is_wrong(cluster: ClusterUnderTest) -> None:
    ann, bob = owner("ann"), owner("bob")
    accept(ann, b"x" * 1000)
    accept(bob, b"")
    assert inspection.usage_unlike_the_rows() == []
    Tally.objects.create(what=Tally.What.BYTES, key=ann.pk, amount=1)
    Tally.objects.create(what=Tally.What.FILES, key=bob.pk, amount=-1)
    assert len(inspection.usage_unlike_the_rows()) == 2


# -- refusals before the body arrives, and while it arrives ------------------


def test_a_body_that_is_declared_too_large_is_refused_before_it_is_read(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=1000)
    with pytest.raises(ByteQuotaExceeded, match="and 1001 more"):
        Reception(ann, declared_size=1001, name="a")
    limited(ann, max_files=0)
    with pytest.raises(FileQuotaExceeded):
        Reception(ann, declared_size=0, name="a")


def test_a_form_may_be_larger_than_its_file(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=1000)
    with Reception(ann, declared_size=1300, name="a", overhead=1 << 20) as reception:
        reception.write(b"x" * 1000)
        reception.accept("a", 2, durable=False)
    limited(ann, max_bytes=5000)
    with pytest.raises(ByteQuotaExceeded, match="at least 4001 more"):
        Reception(ann, declared_size=4001 + (1 << 20), name="b", overhead=1 << 20)


def test_a_body_of_unknown_length_is_stopped_when_it_exceeds_what_is_left(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_bytes=1 << 20)
    with Reception(ann, declared_size=0, name="a") as reception:
        reception.write(b"x" * (1 << 20))
        with pytest.raises(ByteQuotaExceeded, match="at least 1048577 more"):
            reception.write(b"x")
    assert not Upload.objects.exists()
    assert cluster.staged() == []


def test_a_large_body_is_stopped_when_others_have_taken_what_was_left(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "HEARTBEAT_SECONDS", 0.0)
    ann = limited(owner("ann"), max_bytes=1 << 20)
    with Reception(ann, declared_size=1 << 20, name="a") as reception:
        reception.write(b"x" * 500_000)
        accept(ann, b"y" * 400_000, "b")
        reception.write(b"x" * 100_000)
        with pytest.raises(ByteQuotaExceeded):
            reception.write(b"x" * 100_000)


def test_a_quota_that_is_set_while_the_body_arrives_holds(cluster: ClusterUnderTest) -> None:
    ann = owner("ann")
    with Reception(ann, declared_size=1000, name="a") as reception:
        reception.write(b"x" * 1000)
        limited(ann, max_bytes=999)
        with pytest.raises(ByteQuotaExceeded):
            reception.accept("a", 2, durable=False)
    assert require_recount(ann) == Usage(0, 0)
    assert cluster.staged() == []


# -- many uploads at once ----------------------------------------------------


@pytest.mark.parametrize("size", [1000, 300_000], ids=["in memory", "staged"])
@pytest.mark.parametrize("last", ["file", "bytes"])
def test_16_uploads_that_race_for_the_last_slot(
    cluster: ClusterUnderTest, size: int, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "FOLD_FROM", 0)
    ann = owner("ann")
    accept(ann, b"x" * size, "first")
    limited(ann, max_files=2) if last == "file" else limited(ann, max_bytes=3 * size - 1)

    arrived = Barrier(16)

    def upload(number: int) -> Callable[[], Any]:
        return lambda: accept(ann, bytes([number]) * size, f"file {number}", then=lambda: arrived.wait(timeout=30))

    found = at_once([*map(upload, range(16)), Tally.fold])
    assert sum(isinstance(result, AcceptedFile) for result in found) == 1, found
    assert sum(isinstance(result, REFUSALS) for result in found) == 15
    assert require_recount(ann) == Usage(2, 2 * size)
    assert Upload.objects.count() == Content.objects.count() == len(cluster.staged()) == 2


def test_an_upload_waits_for_the_one_before_it_and_sees_what_that_has_stored(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_files=1)
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            accept(ann, b"1", "first")
            second = pool.submit(at_once, [lambda: accept(ann, b"2", "second")])
            deadline = time.monotonic() + 10
            while not prepared.rows("SELECT 1 FROM pg_locks WHERE NOT granted", []):
                assert time.monotonic() < deadline and not second.done(), "it does not wait"
                time.sleep(0.01)
        assert isinstance(second.result(timeout=10)[0], FileQuotaExceeded)
    assert require_recount(ann) == Usage(1, 1)


def test_uploads_of_one_new_file_that_race_take_one_slot(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_files=1, max_bytes=1000)
    found = at_once([lambda: accept(ann, b"x" * 1000, "same") for _ in range(8)])
    assert [result.created for result in found].count(True) == 1
    assert require_recount(ann) == Usage(1, 1000)


def test_uploads_deletions_and_renames_at_once_never_exceed_the_quota(cluster: ClusterUnderTest) -> None:
    ann = limited(owner("ann"), max_files=3, max_bytes=3000)

    def worker(number: int) -> Callable[[], Any]:
        def act() -> None:
            for turn in range(6):
                name = f"{number % 3}.{turn % 2}"
                try:
                    accepted = accept(ann, name.encode() * 300, name)
                    file = File.objects.select_related("content").get(pk=accepted.file_id)
                    assert Usage.of(ann.pk).files <= 3
                    catalogue.rename(file, name=f"other {turn % 2}")
                    catalogue.delete(file)
                except (StorageError, File.DoesNotExist):
                    continue

        return act

    assert at_once([worker(number) for number in range(6)]) == [None] * 6
    assert require_recount(ann).files <= 3


# -- the cost of quotas in statements ----------------------------------------


def statements_of(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> int:
    """The number of statements that ``act`` sends to PostgreSQL, through the ORM and without it."""
    count = 0
    execute = prepared._execute

    def counting(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return execute(*arguments)

    with monkeypatch.context() as patched, CaptureQueriesContext(connection) as queries:
        patched.setattr(prepared, "_execute", counting)
        act()
    return count + len(queries)


def test_without_a_quota_an_upload_costs_no_statement_more(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = owner("ann"), limited(owner("bob"), max_bytes=1 << 30)
    for name in ("first", "second"):  # The first upload fills the caches.
        small = statements_of(monkeypatch, lambda name=name: accept(ann, b"x" * 1000, name))  # type: ignore[misc]
        large = statements_of(monkeypatch, lambda name=name: accept(ann, b"x" * 300_000, name))  # type: ignore[misc]
    assert (small, large) == (1, 3), "the acceptance; the reserved room, the reception and the acceptance"
    assert statements_of(monkeypatch, lambda: accept(bob, b"x" * 1000)) > small, "the count sees them"
