"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"  # Something makes the service less safe, slower or harder to watch, or could not be checked.
    PROBLEM = "problem"  # Something is wrong now: the command ends with status 1.


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: how bad the finding is.
        found: what the check found.
        remedy: what to do about the finding; empty if nothing is wrong.
    """

    level: Level
    found: str
    remedy: str = ""


def ok(found: str) -> Finding:
    return Finding(Level.OK, found)


def warning(found: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, found, remedy)


def problem(found: str, remedy: str) -> Finding:
    return Finding(Level.PROBLEM, found, remedy)


def divide(words: str) -> tuple[str, str]:
    """Divide the words of a trouble of ``/health`` into what was found and what to do.

    The words have the form ``clause: more; remedy`` or ``clause: remedy``, where the remedy says what to do.
    """
    clause, _, rest = words.partition(": ")
    more, _, remedy = rest.partition("; ")
    return (f"{clause}: {more}", remedy) if remedy else (clause, rest)
