"""The person or program in whose name the present request or command does its work.

Services record this actor with what they do (``models.Activity``). A worker acts for nobody: its jobs say what it does.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

COMMAND_LINE = "command line"
ADMINISTRATION = "administration"
BROWSER = "browser"


@dataclass(frozen=True)
class Actor:
    """The user who acts, and the way in.

    Attributes:
        name: the name of the user; empty at the command line.
        means: the id of the key, or the door: ``BROWSER``, ``ADMINISTRATION`` or ``COMMAND_LINE``; empty for a program
            without a key.
    """

    name: str
    means: str = ""


_present: ContextVar[Actor | None] = ContextVar("actor", default=None)


def begin(actor: Actor | None) -> None:
    """Make ``actor`` the actor of all that this thread does from now on; None for nobody.

    Each request begins with nobody, because a thread serves one request after another.
    """
    _present.set(actor)


def present() -> Actor | None:
    """The actor of this thread; None if it acts for nobody."""
    return _present.get()
