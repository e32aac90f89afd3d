"""A process is killed in each phase of an operation on objects: the operation was done completely, or not at all.

Either outcome is right, because the client of a killed process gets no answer. Objects that were there before the
operation are whole, and the operation can be repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from storage.services.objects.multipart import LEAST_PART
from tests.faults.gates import kill_all
from tests.faults.objects_at_work import PARTS, SIZE, body
from tests.support.installation import Installation

pytestmark = [pytest.mark.system, pytest.mark.faults]

MODULE = "objects_at_work"


@pytest.fixture(scope="module")
def installation(make_installation: Callable[..., Installation]) -> Installation:
    return make_installation(CHUNK_SIZE="65536", RECLAIM_GRACE="1")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def whole(label: str) -> bytes:
    """The bytes of the object that the multipart upload with this label becomes."""
    bodies = [body(f"{label} {number}", LEAST_PART) for number in range(1, PARTS)]
    return b"".join([*bodies, body(f"{label} {PARTS}", SIZE)])


class Doing:
    """Operations on the objects of an installation."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def act(self, function: str, *arguments: object) -> str:
        return self._installation.run(function, ", ".join(map(repr, arguments)), module=MODULE).strip()

    def killed(self, phase: str, function: str, *arguments: object) -> None:
        """Begin an operation, and kill its process when it has entered a phase."""
        gates = self._installation.gates
        gates.close(phase)
        with self._installation.start(function, ", ".join(map(repr, arguments)), module=MODULE) as process:
            kill_all([gates.await_arrival(phase)])
            assert process.wait() == -9
        gates.open(phase)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.act("print_state"))
        return found

    def at(self, key: str) -> str | None:
        """The SHA-256 of the object at a key; None if there is no object."""
        digest: str | None = self.state()["objects"].get(key)
        return digest

    def end(self, scenario: str) -> None:
        """Drop the pending parts of killed requests; check that no other unused part or content is left."""
        self.act("drop_pending")
        assert self.state()["counts"] == {"pending": 0, "parts": 0, "unreferenced": 0}
        self._installation.settle(scenario)


@pytest.fixture
def doing(installation: Installation) -> Doing:
    return Doing(installation)


@pytest.mark.parametrize("phase", ["object.put", "object.commit"])
def test_a_put_that_was_killed_leaves_the_object_that_was_there(doing: Doing, phase: str) -> None:
    doing.act("put", phase, "old")
    doing.killed(phase, "put", phase, "new")
    assert doing.at(phase) == sha256(body("old"))
    doing.act("put", phase, "new")
    assert doing.at(phase) == sha256(body("new"))
    doing.end("process killed in a put")


@pytest.mark.parametrize("phase", ["object.part", "object.complete", "object.completed"])
def test_a_multipart_upload_goes_on_after_a_kill(doing: Doing, phase: str) -> None:
    label = f"of {phase}"
    doing.act("put", label, "old")
    upload_id = doing.act("begin_upload", label, label)
    if phase == "object.part":
        doing.killed(phase, "put_part", label, upload_id, 1, "another")
    else:
        doing.killed(phase, "complete", label, upload_id)
    assert doing.at(label) == sha256(body("old"))
    doing.act("complete", label, upload_id)
    assert doing.at(label) == sha256(whole(label))
    doing.end("process killed in a multipart upload")


def test_a_copy_that_was_killed_changes_nothing(doing: Doing) -> None:
    for key in ("source", "target"):
        doing.act("put", key, key)
    doing.killed("object.copy", "copy", "source", "target")
    assert doing.at("target") == sha256(body("target"))
    doing.act("copy", "source", "target")
    assert doing.at("source") == doing.at("target") == sha256(body("source"))
    doing.end("process killed in a copy")


@pytest.mark.parametrize("phase", ["object.delete", "object.deleted"])
def test_a_deletion_that_was_killed_is_made_again(doing: Doing, phase: str) -> None:
    keys = [f"{phase} {number}" for number in range(3)]
    for key in keys:
        doing.act("put", key, key)
    doing.killed(phase, "delete_many", *keys)
    assert [doing.at(key) for key in keys] == [sha256(body(key)) for key in keys]
    doing.act("delete_many", *keys)
    assert not {*keys} & {*doing.state()["objects"]}
    doing.end("process killed in a deletion")
