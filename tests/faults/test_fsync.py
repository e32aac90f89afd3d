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
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.tracing import Call, attached, calls, run, undone_by_a_power_cut
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

PROGRAM = """
import os, sys
from pathlib import Path
from storage.volumes import FilesystemVolume, Identity, Trashed
root, name, prepare, call = Path(sys.argv[1]), *sys.argv[2:5]
identity, data = Identity("cluster", "node_000", "node"), sys.stdin.buffer.read()
volume = FilesystemVolume(root, identity)
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


def trace(verb: str, folder: Path) -> tuple[list[Call], int, int]:
    """Call a verb in a process of its own under strace.

    Returns all calls of that process, and the indexes at which the calls of the verb begin and end.
    """
    prepare, call = VERBS[verb]
    found = run(
        [sys.executable, "-c", PROGRAM, str(folder / "volume"), HASH, prepare, call],
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
    found, begun, ended = trace(verb, tmp_path)
    assert any(call.name == "fsync" for call in found[begun:ended]), "the verb has nothing to make durable"
    # `settle` must make a copy durable that another writer has not synced. For `settle`, the calls of the other writer
    # are judged, too.
    first = 0 if verb == "settle" else begun
    assert undone_by_a_power_cut(found[first:ended], below=tmp_path / "volume") == []


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation()


@pytest.mark.system
@pytest.mark.faults
def test_a_202_is_sent_after_its_bytes_are_durable(strace: None, installation: Installation, tmp_path: Path) -> None:
    installation.gates.close("ingest.read")  # This gate keeps the staged file in the staging folder.
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
