"""Compare the answers that the clients of the journal got with the state of the service after the faults."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from http.client import HTTPException
from typing import Any

from tests.faults.journal import TERMINAL, Action, Attempt, Exchange, Journal, Outcome

PAGE = 500

Findings = Mapping[str, Sequence[object]]


class Expected(Enum):
    PRESENT = "present"
    ABSENT = "absent"
    EITHER = "either"


class Oracle:
    """Judges a service by a journal of everything that was ever attempted on it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def check(self) -> None:
        """Fail the test if the service has broken a promise, as far as a client can see."""
        found = self.violations()
        assert not found, "\n".join([f"{len(found)} violations:", *found])

    def violations(self, inside: Findings | None = None) -> list[str]:
        """List the broken promises of a service at rest. Each line begins with the kind of violation.

        Args:
            inside: findings about state that no client can see: name of a rule → everything that breaks it.
        """
        found = [f"{rule}: {list(broken)[:5]}" for rule, broken in (inside or {}).items() if broken]
        before = list(self.journal.attempts)
        found += _dishonest_answers(before)
        found += self._lost_jobs(before)
        listed = self._listed()
        by_hash = _by_hash(before)
        for file_hash in sorted(listed.keys() - {h for h, some in by_hash.items() if _of(some, Action.UPLOAD)}):
            found.append(f"ghost: {file_hash[:12]} is listed, and nobody uploaded it")
        for file_hash, attempts in by_hash.items():
            found += self._wrong_with(file_hash, attempts, listed.get(file_hash))
        return found

    # -- the parts of `violations` -----------------------------------------

    def _listed(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        path: str | None = f"/files?limit={PAGE}"
        while path:
            status, page = self.journal.ask(path)
            if status != 200:
                raise HTTPException(f"GET {path} answers {status}")
            found |= {entry["file_hash"]: entry for entry in page["files"]}
            path = page["next"] and "/files?" + page["next"].partition("?")[2]
        return found

    def _lost_jobs(self, attempts: Sequence[Attempt]) -> Iterator[str]:
        """List jobs that a client knows and that have not ended. All jobs must have ended by now."""
        for attempt in attempts:
            if attempt.job and (state := self.journal.job_state(attempt)) not in TERMINAL:
                yield f"job not terminal: it is {state or 'unknown'}: {attempt}"

    def _wrong_with(self, file_hash: str, attempts: Sequence[Attempt], entry: dict[str, Any] | None) -> Iterator[str]:
        expected, about = expectation(attempts), attempts[0]
        if entry is None:
            if expected is Expected.PRESENT:
                yield f"lost: not listed: {about}"
            yield from self._half_there(file_hash, attempts)
            return
        if expected is Expected.ABSENT:
            yield f"resurrected: listed, though it must be gone: {about}"
        yield from self._wrong_with_listed(entry, attempts, about)

    def _half_there(self, file_hash: str, attempts: Sequence[Attempt]) -> Iterator[str]:
        status, _ = self.journal.ask(f"/files/{file_hash}")
        download = self.journal.download(file_hash)
        answered = (status, download.status)
        # A file that was accepted and could not be stored stays visible until an operator decides about it.
        kept = answered == (200, 503) and "failed" in {self.journal.job_state(a) for a in attempts if a.job}
        if answered != (404, 404) and not kept:
            yield f"half there: not listed, shown with {status}, downloaded with {download.status}: {attempts[0]}"

    def _wrong_with_listed(self, entry: dict[str, Any], attempts: Sequence[Attempt], about: Attempt) -> Iterator[str]:
        download = self.journal.download(entry["file_hash"])
        if download.outcome is not Outcome.ACKNOWLEDGED:
            yield f"unreadable: {download}"
        if entry["file_size"] != about.size:
            yield f"size: listed with {entry['file_size']} bytes: {about}"
        wanted = [a.factor for a in _of(attempts, Action.UPLOAD) if a.outcome is Outcome.ACKNOWLEDGED and a.factor]
        if wanted and not _of(attempts, Action.DELETE) and entry["replication_factor"] < max(wanted):
            yield f"factor: {entry['replication_factor']}, though {max(wanted)} was acknowledged: {about}"
        yield from self._wrong_with_chunks(entry, about)

    def _wrong_with_chunks(self, entry: dict[str, Any], about: Attempt) -> Iterator[str]:
        status, report = self.journal.ask(f"/verify/{entry['file_hash']}?deep=true")
        if status != 200:
            yield f"unverified: {status}: {about}"
            return
        if not report["retrievable"] or report["missing_chunks"]:
            yield f"missing chunks: {report['missing_chunks'][:3]}: {about}"
        if sum(chunk["size"] for chunk in report["chunks"]) != about.size:
            yield f"manifest: its sizes do not sum up: {about}"
        target = entry["replication_factor"]
        short = [chunk["index"] for chunk in report["chunks"] if len(set(chunk["nodes"])) < target]
        if short:
            yield f"short of {target} replicas: chunks {short[:5]}: {about}"


def expectation(attempts: Sequence[Attempt]) -> Expected:
    """Derive from all attempts with one file whether the file must be present or absent.

    Requests that overlapped may have taken effect in either order.
    """
    uploads = [a for a in _of(attempts, Action.UPLOAD) if a.outcome is not Outcome.REFUSED]
    deletes = [a for a in _of(attempts, Action.DELETE) if a.outcome is not Outcome.REFUSED]
    for upload in uploads:
        if upload.outcome is Outcome.ACKNOWLEDGED and _all_over(deletes, upload.begun):
            return Expected.PRESENT
    for delete in deletes:
        if delete.outcome is Outcome.ACKNOWLEDGED and _all_over(uploads, delete.begun):
            return Expected.ABSENT
    return Expected.EITHER if uploads else Expected.ABSENT


def lost_files(violations: Sequence[str]) -> int:
    """Count the violations that report a lost file: the file had to be there and could not be read."""
    return sum(violation.startswith(("lost:", "unreadable:")) for violation in violations)


def wrong_answers(violations: Sequence[str]) -> int:
    """Count the violations that report a wrong answer, such as wrong bytes. No fault may cause a wrong answer."""
    return sum(violation.startswith("wrong answer:") for violation in violations)


def bad_answers(exchanges: Iterable[Exchange]) -> Iterator[str]:
    """List the answers that are a defect, whatever fault there was."""
    for exchange in exchanges:
        if exchange.outcome is Outcome.WRONG:
            yield f"wrong answer: {exchange}"
        if exchange.status == 500:
            yield f"crash: {exchange}"


def _dishonest_answers(attempts: Sequence[Attempt]) -> Iterator[str]:
    """List the answers that were wrong at the time of the answer, whatever happened later."""
    yield from bad_answers(attempts)
    by_hash = _by_hash(attempts)
    for attempt in attempts:
        others = by_hash[attempt.file_hash]
        if attempt.action is not Action.UPLOAD and attempt.status in (404, 410) and _stood_throughout(attempt, others):
            yield f"denied: the file was there: {attempt}"
        if attempt.action is Action.DOWNLOAD and attempt.status == 200 and _gone_throughout(attempt, others):
            yield f"served after its deletion: {attempt}"


def _stood_throughout(attempt: Attempt, others: Sequence[Attempt]) -> bool:
    """Tell whether the file was there from the beginning of the attempt to its end."""
    deletes = [a for a in _of(others, Action.DELETE) if a.outcome is not Outcome.REFUSED and a.begun < attempt.ended]
    return any(
        upload.ended < attempt.begun and _all_over(deletes, upload.begun)
        for upload in _of(others, Action.UPLOAD)
        if upload.outcome is Outcome.ACKNOWLEDGED
    )


def _gone_throughout(attempt: Attempt, others: Sequence[Attempt]) -> bool:
    """Tell whether the file was absent from the beginning of the attempt to its end."""
    uploads = [a for a in _of(others, Action.UPLOAD) if a.outcome is not Outcome.REFUSED and a.begun < attempt.ended]
    return any(
        delete.ended < attempt.begun and _all_over(uploads, delete.begun)
        for delete in _of(others, Action.DELETE)
        if delete.outcome is Outcome.ACKNOWLEDGED
    )


def _all_over(attempts: Sequence[Attempt], moment: float) -> bool:
    return max((attempt.took_effect_by for attempt in attempts), default=-math.inf) < moment


def _of(attempts: Sequence[Attempt], action: Action) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.action is action]


def _by_hash(attempts: Sequence[Attempt]) -> dict[str, list[Attempt]]:
    found: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        found.setdefault(attempt.file_hash, []).append(attempt)
    return found
