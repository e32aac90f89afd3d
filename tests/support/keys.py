"""Keys for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User

from storage.accounts import keys, principals
from storage.models import Scope
from tests.support.cluster import ClusterUnderTest


@pytest.fixture
def keys_on(cluster: ClusterUnderTest, settings: Any) -> Iterator[ClusterUnderTest]:
    """A cluster whose clients need keys."""
    settings.OCC = dataclasses.replace(settings.OCC, auth_required=True)
    principals.forget()
    yield cluster
    principals.forget()


def owner(name: str) -> User:
    """The user of this name, made if there is no such user."""
    return User.objects.get_or_create(username=name, defaults={"password": "!"})[0]


def bearer(name: str, scopes: Iterable[Scope] = (Scope.READ, Scope.WRITE, Scope.DELETE)) -> dict[str, str]:
    """The header of a new key of the user of this name."""
    new = keys.create(owner(name), scopes=scopes)
    return {"Authorization": f"Bearer {new.key.pk}:{new.secret}"}
