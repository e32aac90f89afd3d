"""Uploads that are under way when a process is killed, and how long they take to recover."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.faults.gates import stopped
from tests.faults.journal import TERMINAL, Attempt
from tests.support.installation import PATIENCE, RECOVERY, Installation, bytes_of
from tests.support.system import wait_until

MIB = 1 << 20
OLD = bytes_of("old", 700_000)  # Each batch uploads this content, so it is usually stored already.


class Wreck:
    """Accepted uploads, and the moment at which their worker was killed."""

    def __init__(self, attempts: list[Attempt]) -> None:
        self.attempts = attempts
        self.killed_at = time.monotonic()

    def strike(self) -> None:
        """Record that the kill has happened now."""
        self.killed_at = time.monotonic()

    def await_recovery(self, installation: Installation) -> None:
        """Fail unless every job succeeds within RECOVERY + PATIENCE after the kill. Print how many seconds after the
        kill the last job succeeded.
        """
        journal = installation.journal

        def states() -> set[str]:
            return {journal.job_state(attempt) for attempt in self.attempts}

        left = self.killed_at + RECOVERY + PATIENCE - time.monotonic()
        wait_until(lambda: states() <= TERMINAL, left, lambda: f"{states()}: {self.attempts[0]} …")
        assert states() == {"succeeded"}, self.attempts[0]
        print(f"recovered {time.monotonic() - self.killed_at:.1f} s after the kill at most")


def accept(installation: Installation, label: str, data: bytes, midway: Callable[[], object] | None = None) -> Attempt:
    """Upload a file, and expect the answer 202: the job is queued, and the staged bytes are durable.

    ``midway`` is called when half of the body has been sent.
    """
    attempt = installation.journal.upload(data, label, respond_async=True, midway=midway)
    assert attempt.status == 202, attempt
    return attempt


def accept_batch(installation: Installation, label: str) -> list[Attempt]:
    """Queue three uploads that one worker process finds together: a large file, a small one, and a known content."""
    contents = {"large": bytes_of(f"{label} large", 5 * MIB), "small": bytes_of(f"{label} small", 1000), "known": OLD}
    with stopped(*installation.system.family("worker")):
        return [accept(installation, f"{label} {kind}", data) for kind, data in contents.items()]


def hold_in_every_phase(
    installation: Installation, phases: Sequence[str], label: str
) -> tuple[dict[str, int], dict[str, Wreck]]:
    """Hold one worker process in each phase. Return phase → pid of the process, and phase → uploads of the process.

    The last phase is closed first, so that no process has to pass a gate that is closed already.
    """
    held, wrecks = {}, {}
    for phase in reversed(phases):
        installation.gates.close(phase)
        wrecks[phase] = Wreck(accept_batch(installation, f"{label} {phase}"))
        held[phase] = installation.gates.await_arrival(phase)
    assert len(set(held.values())) == len(phases), held
    return held, wrecks
