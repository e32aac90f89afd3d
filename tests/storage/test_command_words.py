"""What commands say: refusals in one plain line, progress, and sizes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management.base import CommandError

from storage import plans
from storage.management import operation
from storage.models import Job, clock
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.commands import run, state_of

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("audit node_009", "no node node_009"),
        ("drain node_009", "no node node_009"),
        ("drain node_001", "4 active nodes would be left"),
        ("drain node_001 --dry-run", "4 active nodes would be left"),
        ("rebalance FILE --replication-factor 6", "the cluster has 5 nodes"),
        ("rebalance FILE --replication-factor 6 --dry-run", "the cluster has 5 nodes"),
        ("rebalance FILE --replication-factor 0", "at least 1"),
        ("rebalance --replication-factor 2", "name one"),
        ("rebalance " + "0" * 64, "no file 000"),
        ("rebalance report.pdf", "not a SHA-256"),
        ("cancel 7", "no job 7"),
        ("cancel 00000000-0000-0000-0000-000000000000", "no job 000"),
    ],
)
def test_what_cannot_be_done_is_one_line(cluster: ClusterUnderTest, command: str, complaint: str) -> None:
    file = cluster.upload(content_of(1), factor=5)
    before = state_of(cluster)
    with pytest.raises(CommandError, match=complaint) as refused:
        run(*command.replace("FILE", file.content.file_hash).split())
    assert "\n" not in str(refused.value)
    assert state_of(cluster) == before


# The first text would control a terminal; the second text is not UTF-8.
STEERING, BYTES = "a\x1b[2Jm\r\n\u202eb", "a\udcff"
NAMED = (
    *("keys create", "keys create ann --name", "keys rotate", "keys revoke", "quota", "quota nobody --bytes"),
    *("give_files", "cancel", "rebalance", "restore SOURCE --backup", "drain", "retire", "audit node_000"),
    *("add_node --url", "add_node --zone", "jobs"),
)


def test_words_that_a_terminal_would_obey_or_that_are_no_text_are_refused_in_a_plain_line(
    cluster: ClusterUnderTest, tmp_path: Path
) -> None:
    before = state_of(cluster)
    for command in NAMED:
        for word in [BYTES] if command == "add_node --zone" else [STEERING, BYTES]:
            with pytest.raises(CommandError) as refused:
                run(*command.replace("SOURCE", str(tmp_path)).split(), word)
            assert str(refused.value).isprintable(), command
            if word == BYTES and command != "jobs":  # ``jobs`` takes no arguments: its parser refuses any.
                assert str(refused.value) == r"'a\udcff' is not UTF-8", command
    assert state_of(cluster) == before
    assert [user.username for user in User.objects.all()] == ["nobody"]


def test_a_path_may_have_any_bytes_and_is_printed_in_a_plain_line(cluster: ClusterUnderTest, tmp_path: Path) -> None:
    for word in (STEERING, BYTES):
        said = run("backup", str(tmp_path / word), "--database-only").splitlines()
        assert said[0].isprintable()
        assert said[0].endswith(" is complete")
        assert "is whole" in run("restore", str(tmp_path / word), "--check")
        for command in (["restore", "--check"], ["backup"]):
            with pytest.raises(CommandError, match="cannot be") as refused:
                run(*command, f"/dev/null/{word}")
            assert str(refused.value).isprintable(), command


@pytest.mark.parametrize(
    ("job", "age", "said"),
    [
        (Job(state="queued"), None, "queued"),
        (Job(state="queued", done=7, total=256, waiting_for="nodes"), None, "2 % (7 of 256), waiting for nodes"),
        (Job(state="running", done=0, total=256), 10, "0 % (0 of 256)"),
        (Job(state="running", done=64, total=256), 10, "25 % (64 of 256), about 30 s left"),
        (Job(state="running", done=1, total=16), 60, "6 % (1 of 16), about 15 min left"),
        (Job(state="running", done=1, total=16), 1800, "6 % (1 of 16), about 7.5 h left"),
        (Job(state="running", done=255, total=256), 10, "99 % (255 of 256), about 1 s left"),
        (Job(state="running", done=256, total=256), 10, "100 % (256 of 256)"),
    ],
)
def test_progress_is_told_in_percent_and_with_the_time_left(db: None, job: Job, age: float | None, said: str) -> None:
    if age is not None:
        job.started_at = clock.now() - timedelta(seconds=age)
    assert operation.progress(job) == said


def outside(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an operator starts it, for a system that is not running."""
    foreign = ("DATABASE_URL", "REDIS_URL")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    argv = [sys.executable, "manage.py", *arguments]
    environment["STORAGE_DIR"] = str(tmp_path)
    return subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [("jobs",), ("audit",), ("changepassword", "admin")])
def test_without_a_running_system_there_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = outside(tmp_path, *arguments)
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    assert re.search(r"PostgreSQL does not answer.*system.*run", found.stderr)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (-(5 << 20), "-5.0 MiB"), (1 << 50, "1024.0 TiB")],
)
def test_bytes_are_readable(count: float, text: str) -> None:
    assert plans.size(count) == text
