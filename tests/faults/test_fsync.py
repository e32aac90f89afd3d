"""The order of system calls shows that acknowledged data would survive a power cut.

A verb (a method of a volume) syncs the bytes of a file before it renames the file to its final name, and syncs the name
before it returns. No test cuts the power. The tests read the calls from the output of the program ``strace`` (Debian's
package strace).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.tracing import SYNCING, WRITING, Call, attached, calls, run, undone_by_a_power_cut
from tests.support.installation import Installation, bytes_of
from tests.support.system import PROJECT

DATA = bytes_of("durable", 5000)
HASH = hashlib.sha256(DATA).hexdigest()

# Verb → two statements. The first statement prepares the volume and is not judged. The second statement calls the verb.
VERBS = {
    "create": ("", "volume.create(identity)"),
    "set_generations": ("volume.create(identity)", "volume.set_generations(['7' * 32])"),
    "write": ("volume.create(identity)", "volume.write({name: data})"),
    "write again": ("volume.create(identity); volume.write({name: data})", "volume.write({name: data})"),
    "trash": ("volume.create(identity); volume.write({name: data})", "volume.trash(name, 't')"),
    "restore": (
        "volume.create(identity); volume.write({name: data}); volume.trash(name, 't')",
        "volume.restore(Trashed(name, 't'))",
    ),
    "quarantine": ("volume.create(identity); volume.write({name: data})", "volume.quarantine(name, 't')"),
    "acquit": (
        "volume.create(identity); volume.write({name: data}); volume.quarantine(name, 't')",
        "volume.acquit(name, 't')",
    ),
    "settle": ("volume.create(identity); unsynced(name, data)", "volume.settle(name)"),
}

WRITTEN = "volume.create(identity); volume.write({name: data})"
PACK_VERBS = {
    "trash": (WRITTEN, "volume.trash(name, 't')"),
    "restore": (f"{WRITTEN}; volume.trash(name, 't')", "volume.restore(Trashed(name, 't'))"),
    "purge": (f"{WRITTEN}; volume.trash(name, 't')", "volume.purge(Trashed(name, 't'))"),
    "quarantine": (WRITTEN, "volume.quarantine(name, 't')"),
    "acquit": (f"{WRITTEN}; volume.quarantine(name, 't')", "volume.acquit(name, 't')"),
}

PROGRAM = """
import os, sys
from pathlib import Path
from storage.volumes import FilesystemVolume, Identity, PackVolume, Trashed
root, name, prepare, call, kind = Path(sys.argv[1]), *sys.argv[2:6]
identity, data = Identity("cluster", "node_000", "node"), sys.stdin.buffer.read()
volume = {"file": FilesystemVolume, "pack": PackVolume}[kind](root, identity)
def unsynced(name, data):
    (root / "chunks" / name[:2] / name).write_bytes(data)
exec(prepare)
os.write(1, b"called")
exec(call)
os.write(1, b"returned")
"""


@pytest.fixture(scope="module")
def strace() -> None:
    """Skip the tests where system calls cannot be traced."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt-get install strace")
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("strace may trace nothing here: it needs ptrace (--cap-add SYS_PTRACE in a container)")


def trace(statements: tuple[str, str], folder: Path, kind: str = "file") -> tuple[list[Call], int, int]:
    """Call a verb in a process of its own under strace.

    Returns all calls of that process, and the indexes at which the calls of the verb begin and end.
    """
    prepare, call = statements
    found = run(
        [sys.executable, "-c", PROGRAM, str(folder / "volume"), HASH, prepare, call, kind],
        folder / "strace.log",
        cwd=PROJECT,
        input=DATA,
        stdout=subprocess.DEVNULL,
    )
    said = [index for index, call in enumerate(found) if call.name == "write" and call.text.startswith("1<")]
    begun, ended = said
    return found, begun, ended


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_verb_has_done_survives_a_power_cut(strace: None, tmp_path: Path, verb: str) -> None:
    found, begun, ended = trace(VERBS[verb], tmp_path)
    assert any(call.name == "fsync" for call in found[begun:ended]), "the verb has nothing to make durable"
    # `settle` must make a copy durable that another writer has not synced. For `settle`, the calls of the other writer
    # are judged, too.
    first = 0 if verb == "settle" else begun
    assert undone_by_a_power_cut(found[first:ended], below=tmp_path / "volume") == []


def position(found: Sequence[Call], names: Sequence[str], suffix: str, *, last: bool = False) -> int:
    """The index of the first or the last call of ``names`` on a file whose path ends with ``suffix``; -1 for none."""
    at = [
        i for i, call in enumerate(found) if call.name in names and call.paths and str(call.paths[0]).endswith(suffix)
    ]
    return (at[-1] if last else at[0]) if at else -1


def test_a_new_volume_of_packs_survives_a_power_cut(strace: None, tmp_path: Path) -> None:
    found, begun, ended = trace(("", "volume.create(identity)"), tmp_path, "pack")
    # The file that tries whether holes can be punched has no name: strace shows it with a number sign.
    named = [call for call in found[begun:ended] if not any("#" in str(path) for path in call.paths)]
    assert undone_by_a_power_cut(named, below=tmp_path / "volume") == []


@pytest.mark.parametrize("prepare", ["volume.create(identity)", WRITTEN], ids=["a new pack", "the same pack"])
def test_a_record_is_durable_before_the_index_has_it(strace: None, tmp_path: Path, prepare: str) -> None:
    """The index needs no sync.

    After a power cut, a process that opens the volume looks for records that the index has lost.
    """
    found, begun, ended = trace((prepare, "volume.write({name: data})"), tmp_path, "pack")
    verb = found[begun:ended]
    assert undone_by_a_power_cut(verb, below=tmp_path / "volume" / "packs") == [], "a record or its pack would be gone"
    synced, indexed = position(verb, SYNCING, ".pack", last=True), position(verb, WRITING, "-wal")
    assert 0 <= position(verb, WRITING, ".pack", last=True) < synced
    assert synced < position(verb, WRITING, "-wal", last=True), "the index had the record before it was durable"
    assert indexed >= 0


@pytest.mark.parametrize("verb", PACK_VERBS)
def test_a_change_of_state_is_durable_before_it_is_told_and_before_a_hole_is_punched(
    strace: None, tmp_path: Path, verb: str
) -> None:
    found, begun, ended = trace(PACK_VERBS[verb], tmp_path, "pack")
    calls_of_verb = found[begun:ended]
    written = position(calls_of_verb, WRITING, "-wal", last=True)
    synced = position(calls_of_verb, SYNCING, "-wal", last=True)
    assert 0 <= written < synced, "the change would be gone after a power cut"
    punched = position(calls_of_verb, ["fallocate"], ".pack")
    assert (punched >= 0) == (verb == "purge")
    assert punched < 0 or synced < punched, "the row may still lead to the hole after a power cut"


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation()


@pytest.mark.system
@pytest.mark.faults
def test_a_202_is_sent_after_its_bytes_are_durable(strace: None, installation: Installation, tmp_path: Path) -> None:
    installation.gates.close("ingest.read")  # This gate keeps the staged file in the staging directory.
    staging = installation.system.storage_dir / "staging"
    api = installation.system.pids()["api"]
    with attached([api, *installation.system.children("api")], tmp_path / "log"):
        attempt = installation.journal.upload(bytes_of("accepted", 200_000), "accepted", respond_async=True)
    assert attempt.status == 202, attempt
    found = calls((tmp_path / "log").read_text().splitlines())
    answered = next(i for i, call in enumerate(found) if "HTTP/1.1 202" in call.text)
    staged = next(path for path in staging.iterdir())
    synced = [call.paths[0] for call in found[:answered] if call.name == "fsync"]
    assert staged in synced and staging in synced, f"sent when only {synced} had been synced"
    assert undone_by_a_power_cut(found[:answered], below=staging) == []
    installation.gates.open("ingest.read")
    installation.settle("a 202 under strace")
