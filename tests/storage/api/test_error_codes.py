"""The code of a problem document: the word by which programs tell problems apart."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from occsite.server import gunicorn_worker
from storage import exceptions as domain
from storage.api import errors
from storage.api.schema import problems
from storage.services import catalogue
from tests.support.api import assert_problem
from tests.support.cluster import ClusterUnderTest
from tests.support.system import PROJECT

HASH = "0" * 64
OWN: dict[type[domain.StorageError], int] = {
    kind: next(errors.STATUS[parent] for parent in kind.__mro__ if parent in errors.STATUS)
    for kind in vars(domain).values()
    if isinstance(kind, type) and issubclass(kind, domain.StorageError) and errors.STATUS.keys() & set(kind.__mro__)
}


def documented() -> dict[str, int]:
    """The codes in the tables of docs/errors.md, with their statuses."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", (PROJECT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "every code is explained once"
    return {code: int(status) for code, status in rows}


def of_the_proxy() -> dict[str, int]:
    rows = re.findall(r'"status": (\d+), "code": "(\w+)"', (PROJECT / "nginx" / "nginx.conf").read_text())
    return {code: int(status) for status, code in rows}


def test_every_code_is_documented_with_its_status() -> None:
    sent = {kind.code: status for kind, status in OWN.items()}
    sent |= {code: errors.STATUS[kind] for kind, code in errors.CODE.items() if kind in errors.STATUS}
    sent |= {str(kind.default_code): kind.status_code for kind in problems.OF_VIEWS}
    sent |= {code: status for status, code in gunicorn_worker.CODES.items()}
    assert documented() == sent | of_the_proxy()


@pytest.mark.parametrize("kind", OWN)
def test_an_error_that_clients_meet_has_a_code_of_its_own(kind: type[domain.StorageError]) -> None:
    assert "code" in vars(kind), "an inherited code would name another error"


def test_every_error_of_the_frameworks_has_a_code() -> None:
    assert {kind for kind in errors.STATUS if kind not in OWN} <= errors.CODE.keys()


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", f"/files/{HASH}", "no_such_file"),
        ("GET", f"/download/{HASH}", "no_such_file"),
        ("GET", f"/route/{HASH}", "no_such_chunk"),
        ("GET", f"/jobs/{HASH}", "no_such_job"),
        ("GET", "/files/xyz", "invalid_request"),
        ("GET", "/files?limit=0", "invalid_request"),
        ("GET", "/nothing", "not_found"),
        ("DELETE", "/status", "method_not_allowed"),
    ],
)
def test_a_program_can_tell_errors_apart(cluster: ClusterUnderTest, method: str, path: str, code: str) -> None:
    response = Client().generic(method, path)
    assert_problem(response, documented()[code])
    assert response.json()["code"] == code


def test_what_nobody_foresaw_is_told_from_a_database_that_is_away(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(error: Exception) -> Any:
        def find(*_: object, **__: object) -> None:
            raise error

        return find

    for error, status, code in (
        (OperationalError("away"), 503, "database_unavailable"),
        (ValueError("a defect"), 500, "internal_error"),
    ):
        monkeypatch.setattr(catalogue, "find_all", raising(error))
        response = Client(raise_request_exception=False).get(f"/files/{HASH}")
        assert_problem(response, status)
        assert response.json()["code"] == code
