"""A pooler that mixes the sessions of its clients is recognised, and the service does not start with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from occsite.launch.preparation import require_sessions
from occsite.postgresql import sessions
from storage.exceptions import ConfigurationError
from tests.support.pooler import pooler
from tests.support.system import PROJECT

pytestmark = pytest.mark.django_db


def test_a_plain_connection_has_no_flaw() -> None:
    assert sessions.flaw(connection.get_connection_params()) == ""
    require_sessions()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("transaction", "gives one session to several clients"),
        ("session", "drops the options of a connection"),
    ],
)
def test_a_pooler_is_recognised_by_what_it_does(tmp_path: Path, mode: str, words: str) -> None:
    with pooler(tmp_path, mode) as parameters:
        assert words in sessions.flaw(parameters)


def test_a_transaction_pooler_grants_a_lock_that_another_client_holds(tmp_path: Path) -> None:
    with (
        pooler(tmp_path, "transaction") as parameters,
        psycopg.connect(**parameters, autocommit=True) as one,
        psycopg.connect(**parameters, autocommit=True) as other,
    ):
        assert sessions._lock_is_granted_twice(one, other)


def test_a_start_behind_a_transaction_pooler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pooler(tmp_path, "transaction") as parameters:
        address = "postgres://{user}:{password}@{host}:{port}/{dbname}".format(**parameters)
        environment = os.environ | {"STORAGE_DIR": str(tmp_path / "state"), "DATABASE_URL": address}
        prepared = subprocess.run(
            [sys.executable, "manage.py", "prepare"],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert prepared.returncode == 1
        assert "a pooler stands before PostgreSQL" in prepared.stderr
        monkeypatch.setattr(connection, "get_connection_params", lambda: parameters)
        with pytest.raises(ConfigurationError, match="connect DATABASE_URL to PostgreSQL itself"):
            require_sessions()
