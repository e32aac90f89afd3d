"""The manager writes whole lines to files of limited size, and a full disk raises no error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from occsite.launch.output import LogFile, say


def test_a_log_is_rotated_by_size(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "api.log", limit=10, copies=2)
    for number in range(5):
        log.write(b"line %d ...\n" % number)
    log.write(b"young\n")
    log.close()
    assert (tmp_path / "api.log").read_text() == "young\n"
    assert (tmp_path / "api.log.1").read_text() == "line 4 ...\n"
    assert (tmp_path / "api.log.2").read_text() == "line 3 ...\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_log_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        log = LogFile(tmp_path / "api.log")
        log.write(line)
        log.close()
    assert (tmp_path / "api.log").read_text() == "one\ntwo\n"


def test_a_full_disk_drops_lines_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not say("dropped\n", os.open("/dev/full", os.O_WRONLY))
    log = LogFile(tmp_path / "api.log")
    log.write(b"before\n")
    room, write = [4], os.write

    def short_write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as full:
        full.setattr(os, "write", short_write)
        log.write(b"cut off\n")
        log.write(b"dropped\n")
    log.write(b"after\n")
    log.close()
    assert (tmp_path / "api.log").read_text() == "before\ncut \nafter\n"


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "gone" / "api.log")
    log.write(b"dropped\n")
    (tmp_path / "gone").mkdir()
    log.write(b"kept\n")
    log.close()
    assert (tmp_path / "gone" / "api.log").read_text() == "kept\n"
