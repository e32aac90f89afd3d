"""A restore into a PostgreSQL database that DATABASE_URL names."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.conf import settings as django_settings
from django.db import connection

from occsite.backup import taking
from occsite.backup.archive import Archive
from occsite.launch.state import restoring_marker
from occsite.signature import signature
from storage.models import File
from tests.faults.disks import replicas
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.system import PROJECT

pytestmark = pytest.mark.faults  # Six restores take longer than a unit test should.

NAME = "restored"


@pytest.fixture
def database(cluster: ClusterUnderTest) -> Iterator[str]:
    """The URL of an empty database on the server of the tests."""
    parameters = connection.get_connection_params()
    with psycopg.connect(**parameters, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {NAME}")
        try:
            host = str(parameters["host"]).replace("/", "%2F")
            yield f"postgres://{parameters['user']}:{parameters['password']}@:{parameters['port']}/{host}/{NAME}"
        finally:
            session.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


def rows(statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(**{**connection.get_connection_params(), "dbname": NAME}) as session:
        return session.execute(statement).fetchall()


def test_a_database_of_the_environment_is_replaced_as_a_whole_or_not_at_all(
    cluster: ClusterUnderTest, database: str, tmp_path: Path
) -> None:
    def restore(*options: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", "restore", str(archive.root), *options],
            cwd=PROJECT,
            env=os.environ | {"DATABASE_URL": database, "STORAGE_DIR": str(state)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    archive, state = Archive(tmp_path / "backups"), tmp_path / "state"
    files = [cluster.upload(content_of(chunks, str(chunks))) for chunks in (2, 5)]
    backup = taking.take(archive, cluster.configuration, lambda _done, _all: None)
    seed = sketch_seed()

    assert "chunks that no node had  7" in restore()
    assert rows("SELECT count(*) FROM storage_file") == [(len(files),)]
    assert rows("SELECT count(*) FROM storage_hold") == [(0,)]
    assert rows("SELECT sketch_seed FROM storage_cluster") != [(seed,)], "sketches of the former life still fit"
    copies = [name for folder in state.glob("nodes/*") for name in replicas(folder)]
    assert sorted(copies) == sorted([h for file in files for h, _ in file.content.manifest()] * 3)
    assert not restoring_marker(state).exists()

    assert "say --replace" in restore(status=1)
    name = signature("api", cluster.configuration, django_settings.SECRET_KEY)
    with psycopg.connect(**{**connection.get_connection_params(), "dbname": NAME, "application_name": name}):
        assert "stop api first" in restore("--replace", status=1)

    # The second half of the dump is missing. The checksum is changed too, so it does not show the loss.
    data = backup.database.read_bytes()
    backup.database.write_bytes(data[: len(data) // 2])
    text = backup.path / "backup.json"
    short = hashlib.sha256(data[: len(data) // 2]).hexdigest()
    text.write_text(json.dumps(json.loads(text.read_text()) | {"database_sha256": short}))
    assert "the dump cannot be restored" in restore("--replace", status=1)
    assert rows("SELECT count(*) FROM storage_file") == [(len(files),)], "half a dump was committed"
    assert restoring_marker(state).exists()

    backup.database.write_bytes(data)
    text.write_text(json.dumps(json.loads(text.read_text()) | {"database_sha256": hashlib.sha256(data).hexdigest()}))
    assert "chunks that no node had  0" in restore()
    assert File.objects.count() == len(files)


def sketch_seed() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT sketch_seed FROM storage_cluster")
        return int(cursor.fetchone()[0])
