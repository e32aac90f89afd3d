"""Clients that vanish, stall or delete what they have just uploaded, and an API that is killed while they send.

The tests share one installation and run in the order of this file.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.journal import Attempt, Outcome, Vanish
from tests.faults.load import load
from tests.faults.wrecks import MIB
from tests.support.installation import PATIENCE, Installation, bytes_of
from tests.support.system import wait_until

pytestmark = [pytest.mark.system, pytest.mark.faults]

CHUNK_SIZE = 65536
VANISHING = 12  # The number of clients of each kind.
IDENTICAL = 50


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(INGEST_WORKERS="2", CHUNK_SIZE=str(CHUNK_SIZE))


@pytest.mark.parametrize("raw", [False, True], ids=["a form", "a raw body"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a declared length", "in chunks"])
def test_clients_that_vanish_leave_nothing(
    installation: Installation, chance: random.Random, chunked: bool, raw: bool
) -> None:
    """Clients vanish at 60 % of the body and at random points.

    The clients never send the end of a body.
    """
    journal = installation.journal
    kind = f"{'a raw body' if raw else 'a form'} in {'chunks' if chunked else 'a declared length'}"
    points = [0.6, 0.6, *(chance.uniform(0.05, 0.95) for _ in range(VANISHING - 2))]

    def vanish(number: int) -> Attempt:
        # The first two bodies are so large that workers have begun to store them when the clients vanish.
        data = bytes_of(f"vanished {kind} {number}", (40 if number < 2 else 3) * MIB)
        going = Vanish(points[number], reset=number % 2 == 0)
        return journal.upload(data, f"vanished {kind} {number}", chunked=chunked, raw=raw, vanish=going)

    with (
        load(installation, f"while clients vanish with {kind}", chance, chunk_size=CHUNK_SIZE) as others,
        ThreadPoolExecutor(4) as clients,
    ):
        vanished = list(clients.map(vanish, range(VANISHING)))
    assert {attempt.outcome for attempt in vanished} == {Outcome.UNKNOWN}
    assert {attempt.outcome for attempt in others} == {Outcome.ACKNOWLEDGED}
    whole = journal.upload(bytes_of(f"whole {kind}", 3 * MIB), f"whole {kind}", chunked=chunked, raw=raw)
    assert whole.status == 201
    installation.settle(f"clients vanish from uploads with {kind}")
    assert {journal.ask(f"/files/{attempt.file_hash}")[0] for attempt in vanished} == {404}


def test_clients_that_fall_silent_are_told_so(installation: Installation) -> None:
    journal = installation.journal
    data = bytes_of("silent", 3 * MIB)
    attempt = journal.upload(data, "silent", midway=lambda: time.sleep(6))  # STALL_TIMEOUT is 2 s
    assert attempt.status == 408, attempt
    installation.settle("a client falls silent")


def test_an_api_that_is_killed_loses_no_upload_that_it_acknowledged(
    installation: Installation, chance: random.Random
) -> None:
    journal, system = installation.journal, installation.system
    with load(installation, "while the API is killed", chance, chunk_size=CHUNK_SIZE, pause=0.2):
        for number in range(3):
            data = bytes_of(f"cut by the API {number}", (3 + 40 * number) * MIB)
            cut = journal.upload(data, f"cut by the API {number}", midway=lambda: system.kill("api"))
            killed_at = time.monotonic()
            assert cut.outcome is Outcome.UNKNOWN
            wait_until(system.is_ready, PATIENCE, system.output)
    installation.settle("API killed in the middle of uploads", since=killed_at)


def test_identical_uploads_at_once_make_one_file_that_is_deleted_once(installation: Installation) -> None:
    journal = installation.journal
    data = bytes_of("identical", MIB)
    with ThreadPoolExecutor(IDENTICAL) as clients:
        uploads = list(clients.map(lambda _: journal.upload(data, "identical"), range(IDENTICAL)))
        assert Counter(attempt.status for attempt in uploads) == {201: 1, 200: IDENTICAL - 1}
        file_hash = uploads[0].file_hash
        deletes = list(clients.map(lambda _: journal.delete(file_hash), range(IDENTICAL - 1)))
        assert Counter(attempt.status for attempt in deletes) == {204: 1, 404: IDENTICAL - 2}
    assert journal.download(file_hash).status == 404
    installation.settle("50 identical uploads, then 49 deletions")


def test_identical_uploads_and_deletes_at_once_leave_the_file_whole_or_gone(
    installation: Installation, chance: random.Random
) -> None:
    journal = installation.journal
    data = bytes_of("contested", MIB)
    first = journal.upload(data, "contested")
    requests: list[Callable[[], Attempt]] = [
        *(lambda i=i: journal.upload(data, f"contested {i}") for i in range(IDENTICAL)),
        *(lambda: journal.delete(first.file_hash) for _ in range(IDENTICAL - 1)),
    ]
    chance.shuffle(requests)
    with ThreadPoolExecutor(25) as clients:
        made = list(clients.map(lambda request: request(), requests))
    # An upload is answered with 503 if the file was deleted before the upload's job was done: that cancels the job.
    assert {attempt.status for attempt in made} <= {200, 201, 204, 404, 503}, Counter(a.status for a in made)
    assert {a.detail for a in made if a.status == 503 and "cancelled" not in a.detail} == set()
    installation.settle("50 identical uploads against 49 deletions")
