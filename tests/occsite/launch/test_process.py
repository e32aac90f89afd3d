"""The command that makes a program end with its parent."""

from __future__ import annotations

import shlex
import signal
import subprocess

from occsite.launch.process import dying_with_parent


def test_a_program_starts_under_the_parent_it_was_meant_for() -> None:
    argv = dying_with_parent(signal.SIGKILL, ["echo", "two words", "%d $x"])
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "two words %d $x\n"


def test_a_program_whose_parent_has_died_already_does_not_start() -> None:
    argv = dying_with_parent(signal.SIGKILL, ["echo", "started"])
    # The program's parent is this shell and not the test's process.
    another = ["sh", "-c", f"{shlex.join(argv)}; true"]
    assert subprocess.run(another, capture_output=True, text=True, check=True).stdout == ""
