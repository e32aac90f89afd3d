"""Judge a store of objects by everything that clients attempted on it. No request is sent here.

A key of a bucket is a register. A change of a register took effect at one moment between its begin and its end. A
change with an unknown outcome may take effect at any later moment, or never; a refused change never takes effect. An
acknowledged change that began after the end of another change hides that other change. Changes that overlap may have
taken effect in either order.

A look, such as a GET or a listing, may have seen each state that some change made before the look ended, unless the
state was hidden before the look began. Whatever a look has seen took effect by the end of the look, even if its outcome
is unknown. A copy without an answer may have brought any version that its source may have had since. A part of a
multipart upload is a register too: to complete or to abort the upload empties the register.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.journal import Action, Exchange, Outcome


@dataclass(frozen=True)
class Version:
    """What a register may hold. No two uploads have the same bytes, so an ETag names one version.

    Attributes:
        etag: the ETag without quotes.
        size: the number of bytes.
        digest: the SHA-256 of the bytes in hex; empty if nobody knows the bytes.
    """

    etag: str
    size: int
    digest: str

    def __str__(self) -> str:
        return f"{self.etag} of {self.size} bytes"


@dataclass(eq=False)
class Change(Exchange):
    """A request that changes registers.

    Attributes:
        operation: the name of the operation in S3.
        effects: register → the version that the change brings; None if the change empties the register.
        source: the register that a copy reads; None if the change is no copy. While the server has not said which
            version was copied, the copy's effect is None.
    """

    operation: str
    effects: dict[str, Version | None]
    source: str | None = None

    def __str__(self) -> str:
        what = [f"{key} → {version or 'nothing'}" for key, version in self.effects.items()]
        origin = f" from {self.source}" if self.source else ""
        return f"{self.operation} of {', '.join(what)}{origin}: {self.said}"

    @property
    def action(self) -> Action:
        """What the change counts as, in the table of scenarios."""
        return Action.UPLOAD if any(self.effects.values()) else Action.DELETE

    def brings(self, key: str, version: Version | None) -> bool:
        """Tell whether the change gives the register this version, as far as that is known."""
        return self.effects[key] == version and not self.is_blind(key)

    def is_blind(self, key: str) -> bool:
        """Tell whether the change is a copy of a version that is not known."""
        return self.source is not None and self.effects[key] is None


@dataclass(eq=False)
class Look(Exchange):
    """A request that shows registers.

    Attributes:
        operation: the name of the operation in S3.
        about: the key or the keys that the client asked for.
        seen: register → the version that the client saw; None if the client was told that the register is empty. The
            mapping is empty if the client was told nothing.
    """

    operation: str
    about: str
    seen: dict[str, Version | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.operation} of {self.about}: {self.said}"

    @property
    def action(self) -> Action | None:
        """What the look counts as, in the table of scenarios; None if it does not count."""
        return Action.DOWNLOAD if self.operation == "GetObject" else None


class Registers:
    """Registers, all changes that were attempted on them, and all looks at them."""

    def __init__(self, changes: Sequence[Change], looks: Sequence[Look]) -> None:
        """
        Args:
            changes: all changes. At the beginning all registers were empty.
            looks: all looks.
        """
        self._looks = looks
        self._changes: dict[str, list[Change]] = {}
        for change in changes:
            for key in change.effects if change.outcome is not Outcome.REFUSED else ():
                self._changes.setdefault(key, []).append(change)
        self._known = {version for change in changes for version in change.effects.values() if version is not None}
        # (Change, register) → the moment by which the change has taken effect on the register, if it ever does.
        self._effective = {(c, key): c.took_effect_by for key, some in self._changes.items() for c in some}
        for look in looks:
            for key, version in look.seen.items():
                if version is not None:
                    self._note(key, version, look.ended)

    def _note(self, key: str, version: Version, moment: float) -> None:
        """Note that a change has taken effect by a moment at which its version was seen, if no other change made it."""
        origins = [c for c in self._begun(key, moment) if c.brings(key, version) or c.is_blind(key)]
        if len(origins) == 1:
            place = (origins[0], key)
            self._effective[place] = min(self._effective[place], moment)

    def violations(self) -> Iterator[str]:
        """List the looks that saw what they cannot have seen. Each line begins with the kind of violation."""
        for look in self._looks:
            for key, version in look.seen.items():
                if not self.may_hold(key, version, look.begun, look.ended):
                    yield f"{self._kind(look, key, version)}: {key} held {version or 'nothing'}: {look}"

    def may_hold(
        self,
        key: str,
        version: Version | None,
        since: float,
        until: float,
        passed: frozenset[Change] = frozenset(),
    ) -> bool:
        """Tell whether a register may have held a version at a moment between ``since`` and ``until``.

        Args:
            key: the register.
            version: the version; None if the register was empty.
            since: a time of the monotonic clock.
            until: a time of the monotonic clock.
            passed: copies that need not be considered, because this question is about their sources.
        """
        hidden_before = self._hidden_before(key, since)
        if version is None and hidden_before == -math.inf:
            return True
        for change in self._begun(key, until):
            by = self._effective[change, key]
            if by < hidden_before or change in passed:
                continue
            if change.brings(key, version):
                return True
            if version is not None and change.is_blind(key) and change.source is not None:
                copied_by = min(by, until)
                if self.may_hold(change.source, version, change.begun, copied_by, passed | {change}):
                    return True
        return False

    def _hidden_before(self, key: str, moment: float) -> float:
        """Return when the newest change began that had taken effect by ``moment``.

        Each change that took effect before the returned time was hidden at ``moment`` by this newest change.
        """
        some = self._changes.get(key, ())
        return max((c.begun for c in some if self._effective[c, key] < moment), default=-math.inf)

    def _begun(self, key: str, moment: float) -> Iterator[Change]:
        return (change for change in self._changes.get(key, ()) if change.begun < moment)

    def _kind(self, look: Look, key: str, version: Version | None) -> str:
        if version is None:
            return "not listed" if look.operation.startswith("List") else "lost"
        if version not in self._known:
            return "wrong answer: no client sent these bytes with this ETag"
        if not any(c.brings(key, version) or c.is_blind(key) for c in self._begun(key, look.ended)):
            return "wrong answer: the version is of another key"
        hidden_before = self._hidden_before(key, look.begun)
        hiding = [c for c in self._changes[key] if c.begun == hidden_before]
        return "resurrected" if any(c.brings(key, None) for c in hiding) else "stale"
