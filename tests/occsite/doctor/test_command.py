"""The command ``doctor`` as an operator runs it: its report, its exit status, and its work while servers are down."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from occsite.doctor import examination
from occsite.doctor.examination import Check
from occsite.doctor.findings import ok
from storage.models import Content
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.system import PROJECT


def doctor(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "doctor"],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def test_it_works_while_both_servers_are_away(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    away = {"DATABASE_URL": "postgres://occ:long@127.0.0.1:1/occ", "REDIS_URL": "redis://127.0.0.1:1/0"}
    report = doctor(STORAGE_DIR=str(tmp_path), **away)
    assert report.returncode == 1, report.stderr
    lines = {line[9:23].strip(): line for line in report.stdout.splitlines() if line[:7].strip()}
    assert lines["postgresql"].startswith("problem")
    assert lines["redis"].startswith("problem")
    assert "not checked" in lines["volumes"]
    assert lines["user"].startswith("ok")
    assert lines["space"].startswith("ok")


def test_it_says_that_it_cannot_run() -> None:
    report = doctor(CHUNK_SIZE="a lot")
    assert (report.returncode, report.stdout) == (2, "")
    assert report.stderr == "occ-storage: CHUNK_SIZE='a lot' is not a whole number\n"


def test_it_tells_what_health_tells(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.upload(content_of(2))
    Content.objects.update(min_replication=1)
    monkeypatch.setattr(examination, "CHECKS", ())
    out = StringIO()
    call_command("doctor", stdout=out)
    assert "warning  service         files have fewer copies than they should: 1\n" in out.getvalue()
    assert "-> they are made as soon as nodes can take them" in out.getvalue()
    assert out.getvalue().endswith("\n0 problems, 1 warning\n") or "sketches" in out.getvalue()


def test_a_check_that_fails_does_not_hide_the_others(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[None]:
        raise RuntimeError("no such thing")

    checks = (Check("broken", broken), Check("other", lambda: [ok("is good")]))  # type: ignore[arg-type]
    monkeypatch.setattr(examination, "CHECKS", checks)
    out = StringIO()
    with pytest.raises(SystemExit, match="1"):
        call_command("doctor", stdout=out)
    assert "problem  broken          the check failed: RuntimeError('no such thing')" in out.getvalue()
    assert "ok       other           is good" in out.getvalue()
