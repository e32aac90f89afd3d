"""Uploads that are under way when something is killed, and how long they take to recover."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.faults.gates import stopped
from tests.faults.journal import TERMINAL, Attempt
from tests.support.installation import PATIENCE, RECOVERY, Installation, bytes_of
from tests.support.system import wait_until

MIB = 1 << 20
OLD = bytes_of("old", 700_000)  # what every installation under test has from the beginning


class Wreck:
    """Accepted uploads, and when their worker was lost."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self.attempts = attempts
        self.killed_at = time.monotonic()

    def strike(self) -> None:
        """Say that the kill has happened."""
        self.killed_at = time.monotonic()

    def await_recovery(self, installation: Installation) -> None:
        """Fail unless every job succeeds within the bound; prints the seconds since the kill."""
        journal = installation.journal

        def states() -> set[str]:
            return {journal.job_state(attempt) for attempt in self.attempts}

        left = self.killed_at + RECOVERY + PATIENCE - time.monotonic()
        wait_until(lambda: states() <= TERMINAL, left, lambda: f"{states()}: {self.attempts[0]} …")
        assert states() == {"succeeded"}, self.attempts[0]
        print(f"recovered {time.monotonic() - self.killed_at:.1f} s after the kill at most")


def accept(installation: Installation, label: str, data: bytes, midway: Callable[[], object] | None = None) -> Attempt:
    """A 202: the job is queued, and the staged bytes are durable. ``midway`` is called when half has been sent."""
    attempt = installation.journal.upload(data, label, respond_async=True, midway=midway)
    assert attempt.status == 202, attempt
    return attempt


def accept_batch(installation: Installation, label: str) -> list[Attempt]:
    """Uploads that one worker process finds queued together: a large one, a small one, and one that is known."""
    contents = {"large": bytes_of(f"{label} large", 5 * MIB), "small": bytes_of(f"{label} small", 1000), "known": OLD}
    with stopped(*installation.system.family("worker")):
        return [accept(installation, f"{label} {kind}", data) for kind, data in contents.items()]


def hold_in_every_phase(
    installation: Installation, phases: Sequence[str], label: str
) -> tuple[dict[str, int], dict[str, Wreck]]:
    """One worker process in each phase; phase → its pid, and phase → its uploads.

    The last phase comes first, so that nobody has to pass a gate that is closed already.
    """
    held, wrecks = {}, {}
    for phase in reversed(phases):
        installation.gates.close(phase)
        wrecks[phase] = Wreck(accept_batch(installation, f"{label} {phase}"))
        held[phase] = installation.gates.await_arrival(phase)
    assert len(set(held.values())) == len(phases), held
    return held, wrecks
