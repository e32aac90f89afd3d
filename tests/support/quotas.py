"""Owners with quotas, and uploads that go as far as their acceptance."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User

from storage.accounts import quotas
from storage.models import AcceptedFile
from storage.services.intake import Reception


def limited(user: User, max_bytes: int | None = None, max_files: int | None = None) -> User:
    quotas.limit(user, max_bytes=max_bytes, max_files=max_files)
    return user


def accept(
    user: User,
    data: bytes,
    name: str | None = "a",
    *,
    declared: int | None = None,
    then: Callable[[], object] = lambda: None,
) -> AcceptedFile:
    """Upload a file up to its acceptance. ``then`` is called when the whole body has arrived."""
    size = len(data) if declared is None else declared
    with Reception(user, declared_size=size, name=name) as reception:
        for start in range(0, len(data), 10_000):
            reception.write(data[start : start + 10_000])
        then()
        return reception.accept(name, 2, durable=False)
