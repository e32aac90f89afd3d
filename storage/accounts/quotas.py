"""How much an owner may store: read how large a new file may be, change the limits, list the usage (ADR 22).

The acceptance of an upload makes the final decision (``record_acceptance``). This module refuses a body before its
acceptance: before the body is read, or while it arrives.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import structlog
from django.contrib.auth.models import User

from storage.exceptions import ByteQuotaExceeded, FileQuotaExceeded, InvalidRequest
from storage.models import Destination, Quota, Usage
from storage.models.quota import Standing
from storage.recent import Recent

log = structlog.get_logger(__name__)

GOOD_SECONDS = 5.0  # A process keeps the list of owners with a quota for this long.
LATELY = 1.0  # A process keeps the usage of an owner with a quota for this long.
MOST = (1 << 63) - 1
UNITS = {"": 1, "b": 1} | {
    f"{letter}{binary}b": (1024 if binary else 1000) ** power
    for power, letter in enumerate("kmgtp", 1)
    for binary in ("", "i")
}
NO_LIMIT = "none"
NONE = Usage(0, 0)
UNLIMITED: Standing = (Quota(), NONE, None)

_owners: Recent[frozenset[int]] = Recent(GOOD_SECONDS)
_standings: defaultdict[int, Recent[Standing]] = defaultdict(lambda: Recent(LATELY))


@dataclass
class Allowance:
    """What an owner with a quota may upload now.

    Attributes:
        quota: the quota.
        used: what the owner has stored.
        known: the size of the owner's largest file of the same name, or of any name if the name is not known; None if
            there is no such file. The body may be this file again.
        files: the number of files or objects that the body makes.
        look: a function that reads ``quota``, ``used`` and ``known`` again; None if they have just been read.
    """

    quota: Quota
    used: Usage
    known: int | None = None
    files: int = 1
    look: Callable[[], Standing | None] | None = None

    def require(self, size: int, *, so_far: bool = False) -> None:
        """Refuse a body that cannot be accepted. A file that the owner has already may be uploaded again.

        No body is refused because of a usage that is a moment old: before a refusal, the usage is read again.

        Args:
            size: a number of bytes that the body has at least.
            so_far: True if the body may have more than ``size`` bytes.

        Raises:
            ByteQuotaExceeded, FileQuotaExceeded: the body is a new file, and does not fit into the quota.
        """
        if self.known is not None and size <= self.known:
            return
        try:
            self.quota.require(self.used, size, files=self.files, so_far=so_far)
        except (ByteQuotaExceeded, FileQuotaExceeded):
            if self.look is None:
                raise
            self.quota, self.used, self.known = self.look() or UNLIMITED
            self.look = None
            self.require(size, so_far=so_far)


def allowance(owner_id: int, name: str | None, *, lately: bool = False) -> Allowance | None:
    """Read what an owner may upload under a name; None if the owner has no quota.

    For an owner without a quota, the call needs no query, except one for all owners every ``GOOD_SECONDS``. For an
    owner with a quota, it needs one query.

    Args:
        owner_id: the owner.
        name: the name of the new file; None if that is not known.
        lately: True if the usage may be up to ``LATELY`` seconds old, because the body is so small that it may be read
            and then refused. Then there is one query every ``LATELY`` seconds, and one more for a body that seems not
            to fit.
    """
    if owner_id not in _owners.see(Quota.owners):
        return None
    look = partial(Quota.standing, owner_id, name)
    if lately:
        quota, used, _ = _standings[owner_id].see(lambda: Quota.standing(owner_id, "") or UNLIMITED)
        return Allowance(quota, used, look=look)
    standing = look()
    return None if standing is None else Allowance(*standing)


def allowances_at(owner_id: int, destination: Destination) -> list[Allowance]:
    """Read what an owner may store at a place of a bucket: by the owner's quota, and by the bucket's.

    Args:
        owner_id: the owner.
        destination: the place.
    """
    bucket = destination.bucket
    quota = Quota.find(owner_id) if owner_id in _owners.see(Quota.owners) else None
    limits = [(quota, Usage.of(owner_id))] if quota is not None else []
    if bucket.quota is not None:
        limits.append((bucket.quota, bucket.used))
    if not limits:
        return []
    files, overwritten = destination.cost()
    return [Allowance(quota, used.without(overwritten), files=files) for quota, used in limits]


def limit(owner: User, *, max_bytes: int | None, max_files: int | None) -> None:
    """Set the quota of an owner. Files that are stored already stay, however many they are.

    Args:
        owner: the owner.
        max_bytes: the bytes that all files of the owner may have together; None for no limit.
        max_files: the number of files; None for no limit.
    """
    if max_bytes is None and max_files is None:
        Quota.objects.filter(owner=owner).delete()
    else:
        Quota.objects.update_or_create(owner=owner, defaults={"max_bytes": max_bytes, "max_files": max_files})
    _owners.forget()
    _standings.clear()
    log.info("quota.changed", owner=owner.pk, max_bytes=max_bytes, max_files=max_files)


@dataclass(frozen=True)
class Account:
    """An owner, with what the owner has stored and may store.

    Attributes:
        owner: the owner.
        used: what the owner has stored.
        max_bytes: the bytes that all files may have together; None for no limit.
        max_files: the number of files; None for no limit.
    """

    owner: User
    used: Usage
    max_bytes: int | None = None
    max_files: int | None = None

    @classmethod
    def of(cls, owner: User, used: Usage, quota: Quota | None) -> Account:
        return cls(owner, used) if quota is None else cls(owner, used, quota.max_bytes, quota.max_files)


def account(owner: User) -> Account:
    """The account of one owner."""
    return Account.of(owner, Usage.of(owner.pk), Quota.find(owner.pk))


def accounts() -> list[Account]:
    """The accounts of all owners who have stored something or have a quota, by name."""
    used = {owner_id: usage for owner_id, usage in Usage.by_owner().items() if usage != NONE}
    quotas = {quota.pk: quota for quota in Quota.objects.all()}
    owners = User.objects.filter(pk__in={*used, *quotas}).order_by("username")
    return [Account.of(owner, used.get(owner.pk, NONE), quotas.get(owner.pk)) for owner in owners]


def parse(text: str, field: str) -> int | None:
    """The number in a text such as ``500``, ``10GB`` or ``1.5 GiB``; None for ``none``.

    Args:
        text: the text. A unit with an ``i`` is a power of 1024; a unit without an ``i`` is a power of 1000.
        field: the name of the field or option, for the message.

    Raises:
        InvalidRequest: the text is neither a size nor ``none``, or the number is too large, or not whole.
    """
    if text.strip().lower() == NO_LIMIT:
        return None
    found = re.fullmatch(r"\s*(\d{1,19}(?:\.\d{1,9})?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    value = Decimal(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else None
    if value is None or value > MOST or value != int(value):
        raise InvalidRequest(f"{text!a} is not like 500MB, 10GB, 1.5TiB or {NO_LIMIT}", {field: ["Not a size."]})
    return int(value)
