"""POST /upload: the answers to the bodies that clients send."""

from __future__ import annotations

import dataclasses
import hashlib
from threading import BoundedSemaphore
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from storage.api.wsgi import transfers
from storage.cluster import topology
from storage.jobs import wakeups
from storage.models import File, Job, Node
from tests.support.api import Send, assert_nothing_left, assert_problem
from tests.support.cluster import ClusterUnderTest, content_of


def test_a_new_file_answers_201_with_the_fields_of_the_readme(workers: ClusterUnderTest, send: Send) -> None:
    data = content_of(3)
    response = send(data, replication_factor="3")
    assert response.status_code == 201
    body = response.json()
    file_hash = hashlib.sha256(data).hexdigest()
    assert response.headers["Location"] == f"/files/{file_hash}"
    assert body["success"] is True
    assert (body["file_hash"], body["file_name"], body["file_size"]) == (file_hash, "example.pdf", len(data))
    assert (body["chunks"], body["replication_factor"]) == (3, 3)
    hashes = [hashlib.sha256(data[i : i + 4096]).hexdigest() for i in range(0, len(data), 4096)]
    assert {h: sorted(nodes) for h, nodes in body["distribution"].items()} == {h: workers.holders(h) for h in hashes}
    assert all(len(set(nodes)) == 3 for nodes in body["distribution"].values())


def test_content_that_the_owner_has_answers_200_with_the_stored_record(workers: ClusterUnderTest, send: Send) -> None:
    first = send(b"same", name="first.txt")
    again = send(b"same", name="first.txt", replication_factor="4")
    assert (first.status_code, again.status_code) == (201, 200)
    assert (first.json()["deduplicated"], again.json()["deduplicated"]) == (False, True)
    assert again.json()["file_name"] == "first.txt"
    assert again.json()["replication_factor"] == 4
    assert File.objects.count() == 1


def test_a_second_name_of_the_same_bytes_is_a_new_file_that_needed_no_bytes(
    workers: ClusterUnderTest, send: Send
) -> None:
    send(b"same", name="first.txt", replication_factor="2")
    second = send(b"same", name="second.txt")
    assert (second.status_code, second.json()["deduplicated"]) == (201, True)
    assert (second.json()["file_name"], second.json()["replication_factor"]) == ("second.txt", 3)
    listed = Client().get("/files").json()
    assert [file["file_name"] for file in listed["files"]] == ["first.txt", "second.txt"]
    assert listed["total_files"] == Client().get("/status").json()["files_stored"] == 2


def test_an_empty_file_is_a_file(workers: ClusterUnderTest, send: Send) -> None:
    response = send(b"", name="empty")
    assert response.status_code == 201
    assert (response.json()["file_size"], response.json()["chunks"], response.json()["distribution"]) == (0, 0, {})


def test_an_empty_factor_in_the_form_means_the_default(workers: ClusterUnderTest, send: Send) -> None:
    response = send(b"x", replication_factor="")
    assert response.status_code == 201
    assert response.json()["replication_factor"] == 3


def test_prefer_respond_async_answers_202_and_the_job_ends(cluster: ClusterUnderTest, send: Send) -> None:
    data = content_of(2)
    response = send(data, headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    body = response.json()
    assert body.keys() >= {"success", "file_hash", "file_name", "file_size", "job"}
    assert response.headers["Location"] == f"/jobs/{body['job']}"
    assert int(response.headers["Retry-After"]) > 0
    assert_problem(Client().get(f"/download/{body['file_hash']}"), 503)
    waiting = Client().get(f"/jobs/{body['job']}")
    assert (waiting.json()["state"], waiting.headers["Retry-After"]) == ("queued", "2")
    cluster.ingest()
    job = Client().get(f"/jobs/{body['job']}").json()
    assert (job["state"], job["progress"], job["error"]) == ("succeeded", {"done": 2, "total": 2}, None)
    assert job["result"]["file_hash"] == body["file_hash"]
    download: Any = Client().get(f"/download/{body['file_hash']}")
    assert b"".join(download.streaming_content) == data


def test_an_upload_that_takes_longer_than_the_wait_answers_202(
    cluster: ClusterUnderTest, send: Send, settings: Any
) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, upload_wait=0)
    response = send(b"slow")
    assert response.status_code == 202
    assert response.headers["Location"] == f"/jobs/{response.json()['job']}"
    assert len(cluster.staged()) == 1


def test_an_upload_is_seen_by_postgresql_when_redis_announces_nothing(
    workers: ClusterUnderTest, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.jobs.wakeups.announce_with", lambda messages: None)
    assert send(b"quiet").status_code == 201


def test_too_few_nodes_answer_503_with_retry_after_and_keep_nothing(workers: ClusterUnderTest, send: Send) -> None:
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        workers.take_offline(node_id)
    response = send(b"nowhere to go")
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0
    assert_nothing_left(workers)


def vanish(cluster: ClusterUnderTest) -> None:
    """Take all nodes away except one. The probe has not yet seen that nodes are away."""
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        cluster.folder(node_id).rename(cluster.folder(node_id).with_suffix(".away"))


def test_nodes_that_have_vanished_answer_503_and_keep_nothing(workers: ClusterUnderTest, send: Send) -> None:
    vanish(workers)
    assert_problem(send(b"nowhere to go"), 503)
    assert_nothing_left(workers)


def test_nodes_that_vanish_before_the_ingest_answer_503_and_keep_nothing(
    workers: ClusterUnderTest, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wake(_queue: Job.Queue, **_: object) -> None:
        vanish(workers)
        workers.ingest()

    monkeypatch.setattr(wakeups, "wake", wake)
    assert_problem(send(b"nowhere to go"), 503)
    assert_nothing_left(workers)
    assert set(Job.objects.filter(kind=Job.Kind.INGEST).values_list("state", flat=True)) == {Job.State.CANCELLED}


def test_full_nodes_answer_507(workers: ClusterUnderTest, send: Send) -> None:
    Node.objects.update(weight=0)
    topology.forget()
    assert_problem(send(b"no room"), 507)
    assert_nothing_left(workers)


def test_when_every_place_is_taken_the_answer_is_503_at_once(
    cluster: ClusterUnderTest, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_slots", BoundedSemaphore(1))
    with transfers.transfer():
        response = send(b"one too many")
        assert_problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        assert Client().get("/health").status_code == 200
    assert transfers._slots.acquire(blocking=False), "the place was given back"


def test_a_factor_that_is_none_is_a_400(workers: ClusterUnderTest, send: Send) -> None:
    for factor in ("abc", "0", "-1", "6", "3.5", "true", "NaN", "1e1", "9" * 5000, "3\0", "null", "[3]"):
        assert_problem(send(b"x", replication_factor=factor), 400, "replication_factor")
    assert_nothing_left(workers)


def test_a_form_without_a_file_is_a_400(workers: ClusterUnderTest) -> None:
    assert_problem(Client().post("/upload", {"replication_factor": "3"}), 400, "file")
    assert_problem(Client().post("/upload", {"file": "just text"}), 400, "file")
    assert_problem(Client().post("/upload"), 400, "file")
    assert_nothing_left(workers)


def test_two_files_in_one_form_are_a_400(workers: ClusterUnderTest) -> None:
    files = [SimpleUploadedFile("a", b"a"), SimpleUploadedFile("b", b"b")]
    assert_problem(Client().post("/upload", {"file": files}), 400, "file")
    assert_nothing_left(workers)


def test_a_form_that_cannot_hold_a_file_is_a_415(workers: ClusterUnderTest) -> None:
    urlencoded = "application/x-www-form-urlencoded"
    for content_type in (urlencoded, f"{urlencoded.upper()}; charset=utf-8"):
        assert_problem(Client().post("/upload", b"file=1", content_type=content_type), 415)
    assert_nothing_left(workers)


def test_a_file_above_the_limit_is_a_413(workers: ClusterUnderTest, send: Send, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, max_upload_size=50_000)
    assert send(b"x" * 50_000).status_code == 201
    workers.ingest()
    assert_problem(send(b"x" * 50_001), 413)
    assert_problem(send(b"x" * 2_000_000), 413)
    assert File.objects.count() == 1
    assert workers.staged() == []


def form_of(file_name: bytes) -> Any:
    head = b'--BB\r\nContent-Disposition: form-data; name="file"; filename="' + file_name + b'"\r\n\r\n'
    form = head + file_name + b"\r\n--BB--\r\n"
    return Client().post("/upload", form, content_type="multipart/form-data; boundary=BB")


def test_a_name_is_kept_as_it_was_written(workers: ClusterUnderTest) -> None:
    family, persian = (
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    )
    names = {
        "C:\\Users\\x\\y.txt": "C:\\Users\\x\\y.txt",
        "é☃.txt": "é☃.txt",
        "\u202egpj.exe": "\u202egpj.exe",
        "a&amp;b": "a&amp;b",
        "research&notes.txt": "research&notes.txt",
        "say %22hi%22.txt": 'say "hi".txt',
        "back\\slash.txt": "back\\slash.txt",
        family: family,
        persian: persian,
        "a\xa0b\u3000c\u202fd\ue000": "a\xa0b\u3000c\u202fd\ue000",
        "\U0001f600" * 255: "\U0001f600" * 255,
    }
    for sent, stored in names.items():
        response = form_of(sent.encode())
        assert response.status_code == 201, response.content
        shown = Client().get(f"/files/{response.json()['file_hash']}").json()
        assert response.json()["file_name"] == shown["file_name"] == stored
        assert not list(workers.configuration.storage_dir.rglob(f"*{stored}"))


def test_a_form_whose_file_has_no_name_that_can_be_one_is_a_400(workers: ClusterUnderTest) -> None:
    for name in (b"..", b".", b"../../etc/passwd", b"a%0Ab", b"a%0D", b"a\0b", b"\xff.txt", b"\x7f", b"x" * 256):
        problem = assert_problem(form_of(name), 400, "file")
        assert "No file was submitted" not in str(problem)
        assert "\\x" not in str(problem), problem
    assert_nothing_left(workers)
