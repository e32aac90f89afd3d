"""All checks, in the order of the report. If one check fails, the other checks go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from occsite.doctor import disks, passwords, postgresql, programs, redis_server
from occsite.doctor.findings import Finding, divide, ok, problem, warning
from storage.models import refusals
from storage.models.refusals import UNAVAILABLE
from storage.services import health
from storage.services.health import Health


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: the name of the check in the report.
        look: makes the findings of the check; at least one.
        needs_postgresql: True if the check cannot be made without PostgreSQL.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    needs_postgresql: bool = True


CHECKS = (
    Check("sessions", postgresql.sessions_are_own),
    Check("durability", postgresql.commits_are_durable),
    Check("connections", postgresql.connections_are_left),
    Check("migrations", postgresql.migrations_are_applied),
    Check("redis", redis_server.keeps_what_it_is_given, needs_postgresql=False),
    Check("user", passwords.user_is_the_owner, needs_postgresql=False),
    Check("space", disks.room_is_left, needs_postgresql=False),
    Check("fsync", disks.fsync_waits, needs_postgresql=False),
    Check("volumes", disks.volumes_are_ours),
    Check("staging", disks.staging_is_in_order),
    Check("programs", programs.versions_agree),
    Check("settings", programs.settings_agree),
    Check("clocks", programs.clocks_agree),
    Check("passwords", passwords.passwords_are_not_the_default, needs_postgresql=False),
    Check("administrators", passwords.administrators_have_passwords_of_their_own),
)

# These troubles of /health have checks of their own, which say more.
_CHECKED_APART = ("postgresql", "redis", "staging", "database")
_CLOCK = "clock of "


def examine() -> Iterator[tuple[str, Finding]]:
    """Make all checks; yields the name of the check and a finding. A check may have several findings."""
    state = health.examine()
    down = state.failing.get("postgresql")
    if down:
        yield "postgresql", problem(*divide(down))
    else:
        yield from (("postgresql", finding) for finding in _guarded(postgresql.version_is_known))
        yield from (("service", finding) for finding in _service(state))
    for check in CHECKS:
        if down and check.needs_postgresql:
            yield (
                check.name,
                warning("not checked: PostgreSQL does not serve", ""),
            )
        else:
            yield from ((check.name, finding) for finding in _guarded(check.look))


def _guarded(look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except UNAVAILABLE as error:
        yield warning(f"not checked: {refusals.words(error)}", "")
    except Exception as error:  # noqa: BLE001  One check that fails must not hide the others.
        yield problem(f"the check failed: {' '.join(repr(error).split())}", "mend that, and run the doctor again")


def _service(state: Health) -> Iterator[Finding]:
    """The troubles that ``/health`` tells, as far as they have no check of their own."""
    node_troubles = {name for name, words in state.degraded.items() if words.startswith(f"{name} ")}
    apart = {*_CHECKED_APART, *node_troubles}
    found = False
    for troubles, make in ((state.failing, problem), (state.degraded, warning)):
        for name, words in troubles.items():
            if name not in apart and not name.startswith(_CLOCK):
                found = True
                yield make(*divide(words))
    if not found:
        yield ok("uploads and downloads are served; no file lacks copies")
