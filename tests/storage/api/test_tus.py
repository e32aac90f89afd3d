"""Resumable uploads by the protocol tus 1.0: requests of clients, and their answers."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
from typing import Any

import pytest
from django.test import Client

from storage.conf import configuration
from storage.models import Content, File, Job, Resumable, Segment, Upload, segment
from tests.support.api import Socket, assert_nothing_left, assert_problem
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest
from tests.support.keys import keys_on
from tests.support.tus import append, begin, encoded, offset_of, path_of, status_of, tus

__all__ = ["keys_on"]

DATA = os.urandom(5 * CHUNK_SIZE + 17)


@pytest.fixture(autouse=True)
def at_once(cluster: ClusterUnderTest, settings: Any) -> None:
    """Let no answer wait for a worker: either there is no worker, or it has done its work before the answer."""
    settings.OCC = dataclasses.replace(settings.OCC, upload_wait=0)


def test_a_body_that_comes_in_pieces_becomes_a_file(workers: ClusterUnderTest) -> None:
    address = begin(len(DATA), filename="schön.bin", replication_factor="2")
    for start in range(0, len(DATA), 3000):
        assert offset_of(address) == start
        response = append(address, start, DATA[start : start + 3000])
        assert response.headers["Upload-Offset"] == str(min(start + 3000, len(DATA)))
    file = File.objects.get()
    assert (file.name, file.replication_factor) == ("schön.bin", 2)
    assert workers.download(file) == DATA
    assert workers.staged() == []
    assert not Upload.objects.exists()
    assert response.headers["Content-Location"] == f"/files/{hashlib.sha256(DATA).hexdigest()}"
    assert {status_of(address)[key] for key in ("stage", "offset")} == {"done", len(DATA)}
    assert offset_of(address) == len(DATA)


def test_what_a_server_can_do_is_asked_without_a_key(keys_on: ClusterUnderTest) -> None:
    response = Client().options("/uploads/")
    assert response.status_code == 204
    assert response.headers["Tus-Version"] == response.headers["Tus-Resumable"] == "1.0.0"
    assert response.headers["Tus-Max-Size"] == str(configuration().max_upload_size)
    assert "concatenation" in response.headers["Tus-Extension"].split(",")
    assert "sha1" in response.headers["Tus-Checksum-Algorithm"].split(",")


def test_the_stages_of_an_upload_are_shown(cluster: ClusterUnderTest) -> None:
    address = begin(len(DATA), filename="a.bin")
    assert status_of(address)["stage"] == "sending"
    append(address, 0, DATA[:100])
    assert (status_of(address)["stage"], status_of(address)["offset"]) == ("sending", 100)
    append(address, 100, DATA[100:])
    shown = status_of(address)
    assert (shown["stage"], shown["file_hash"]) == ("hashing", None)
    assert Client().get(f"/jobs/{shown['job']}").json()["state"] == "queued"
    cluster.ingest()
    shown = status_of(address)
    assert (shown["stage"], shown["file_hash"]) == ("done", hashlib.sha256(DATA).hexdigest())
    assert shown["progress"] == {"done": 6, "total": 6}


def test_head_tells_what_a_client_needs_to_go_on(cluster: ClusterUnderTest) -> None:
    address = begin(len(DATA), filename="a.bin")
    append(address, 0, DATA[:100])
    response = tus("HEAD", address)
    assert response.status_code == 200
    assert response.headers["Upload-Offset"] == "100"
    assert response.headers["Upload-Length"] == str(len(DATA))
    assert response.headers["Upload-Metadata"] == encoded(filename="a.bin")
    assert response.headers["Cache-Control"] == "no-store"
    assert "GMT" in response.headers["Upload-Expires"]


def test_bytes_at_another_offset_are_refused(cluster: ClusterUnderTest) -> None:
    address = begin(len(DATA))
    append(address, 0, DATA[:100])
    for offset in (0, 99, 101, len(DATA)):
        response = tus("PATCH", address, b"x", upload_offset=str(offset))
        assert assert_problem(response, 409)["code"] == "offset_mismatch"
        assert response.headers["Upload-Offset"] == "100"
    assert offset_of(address) == 100


def test_an_offset_that_is_no_number_is_refused(cluster: ClusterUnderTest) -> None:
    address = begin(10)
    assert_problem(tus("PATCH", address, b"x"), 400, "Upload-Offset")
    for offset in ("", "-1", "1.0", "x", "9" * 40, "٣"):
        assert_problem(tus("PATCH", address, b"x", upload_offset=offset), 400, "Upload-Offset")


def test_a_body_longer_than_the_upload_is_refused_before_it_is_read(cluster: ClusterUnderTest) -> None:
    address = begin(100)
    assert_problem(tus("PATCH", address, b"x" * 101, upload_offset="0"), 413)
    assert offset_of(address) == 0
    append(address, 0, b"x" * 99)
    assert_problem(tus("PATCH", address, b"xx", upload_offset="99"), 413)
    append(address, 99, b"x")
    assert_problem(tus("PATCH", address, b"x", upload_offset="100"), 413)
    assert append(address, 100, b"").headers["Upload-Offset"] == "100", "the client had not heard of it"


def test_a_body_that_ends_early_leaves_what_has_come(cluster: ClusterUnderTest) -> None:
    address = begin(len(DATA))
    for start in (0, 1000):
        source = Socket(DATA[start : start + 1000])
        response = tus("PATCH", address, upload_offset=str(start), source=source, content_length=2000)
        assert assert_problem(response, 400)["code"] == "body_truncated"
    source = Socket(DATA[2000:2500], TimeoutError())
    response = tus("PATCH", address, upload_offset="2000", source=source, content_length=2000)
    assert_problem(response, 408)
    assert offset_of(address) == 2500
    append(address, 2500, DATA[2500:])
    cluster.ingest()
    assert cluster.download(File.objects.get()) == DATA


@pytest.mark.parametrize("algorithm", ["sha1", "sha512"])
def test_a_checksum_is_verified_and_bad_bytes_are_dropped(cluster: ClusterUnderTest, algorithm: str) -> None:
    address = begin(len(DATA))
    append(address, 0, DATA[:100])
    good = base64.b64encode(hashlib.new(algorithm, DATA[100:]).digest()).decode()
    response = tus("PATCH", address, DATA[100:-1] + b"?", upload_offset="100", upload_checksum=f"{algorithm} {good}")
    assert assert_problem(response, 460)["code"] == "checksum_mismatch"
    assert response.json()["title"] == "Checksum Mismatch"
    assert offset_of(address) == 100
    cut = tus(
        "PATCH",
        address,
        upload_offset="100",
        upload_checksum=f"{algorithm} {good}",
        source=Socket(DATA[100:200]),
        content_length=len(DATA) - 100,
    )
    assert_problem(cut, 400)
    assert offset_of(address) == 100, "bytes without their proof do not count"
    append(address, 100, DATA[100:], upload_checksum=f"{algorithm} {good}")
    cluster.ingest()
    assert cluster.download(File.objects.get()) == DATA


def test_a_checksum_that_cannot_be_read_is_refused(cluster: ClusterUnderTest) -> None:
    address = begin(10)
    for checksum in ("", "sha1", "sha1 ?", "crc8 AAAA", "sha1  AAAA"):
        refused = tus("PATCH", address, b"x", upload_offset="0", upload_checksum=checksum)
        assert_problem(refused, 400, "Upload-Checksum")


def test_a_first_body_may_come_with_the_creation(workers: ClusterUnderTest) -> None:
    response = tus("POST", "/uploads/", DATA[:50], upload_length=str(len(DATA)))
    assert (response.status_code, response.headers["Upload-Offset"]) == (201, "50")
    append(path_of(response), 50, DATA[50:])
    assert workers.download(File.objects.get()) == DATA
    whole = tus("POST", "/uploads/", DATA, upload_length=str(len(DATA)))
    assert whole.headers["Content-Location"] == f"/files/{hashlib.sha256(DATA).hexdigest()}"


def test_a_creation_whose_body_fails_leaves_nothing(cluster: ClusterUnderTest) -> None:
    source = Socket(DATA[:50])
    fails = tus("POST", "/uploads/", upload_length=str(len(DATA)), source=source, content_length=len(DATA))
    assert_problem(fails, 400)
    assert_problem(tus("POST", "/uploads/", b"x", upload_length="9", upload_checksum="sha1 AAAA"), 460)
    assert_nothing_left(cluster)
    assert not Resumable.objects.exists()


def test_an_empty_file_is_complete_at_once(workers: ClusterUnderTest) -> None:
    address = begin(0, filename="empty")
    assert status_of(address)["stage"] == "done"
    assert workers.download(File.objects.get(name="empty")) == b""


def test_the_length_may_come_later_and_once(workers: ClusterUnderTest) -> None:
    response = tus("POST", "/uploads/", upload_defer_length="1")
    address = path_of(response)
    append(address, 0, DATA[:100])
    assert tus("HEAD", address).headers["Upload-Defer-Length"] == "1"
    assert_problem(tus("PATCH", address, b"x", upload_offset="100", upload_length="99"), 400, "Upload-Length")
    append(address, 100, DATA[100:200], upload_length=str(len(DATA)))
    assert_problem(tus("PATCH", address, b"x", upload_offset="200", upload_length="300"), 400, "Upload-Length")
    append(address, 200, DATA[200:], upload_length=str(len(DATA)))
    assert workers.download(File.objects.get()) == DATA


def test_a_chunked_body_is_counted_as_it_comes(cluster: ClusterUnderTest) -> None:
    address = path_of(tus("POST", "/uploads/", upload_defer_length="1"))
    chunked = tus("PATCH", address, upload_offset="0", source=Socket(DATA), transfer_encoding="chunked")
    assert chunked.status_code == 204
    assert Upload.objects.get().reserved == 3 * len(DATA)
    known = begin(10)
    assert_problem(tus("PATCH", known, upload_offset="0", source=Socket(DATA), transfer_encoding="chunked"), 413)


BAD_CREATIONS: list[tuple[dict[str, Any], int]] = [
    ({}, 400),
    ({"upload_length": "-1"}, 400),
    ({"upload_length": "5", "upload_defer_length": "1"}, 400),
    ({"upload_defer_length": "0"}, 400),
    ({"upload_length": str(1 << 40)}, 413),
    ({"upload_length": "5", "upload_metadata": "filename ?"}, 400),
    ({"upload_length": "5", "upload_metadata": "a YQ==,a YQ=="}, 400),
    ({"upload_length": "5", "upload_metadata": "a " + "A" * 5000}, 400),
    ({"upload_length": "5", "upload_metadata": "filename Li4="}, 400),
    ({"upload_length": "5", "upload_metadata": "filename /w=="}, 400),
    ({"upload_length": "5", "upload_metadata": "replication_factor OQ=="}, 400),
    ({"upload_length": "5", "tus_resumable": "0.2.2"}, 412),
    ({"upload_length": "5", "upload_draft_interop_version": "3"}, 412),
    ({"upload_length": "5", "upload_concat": "whole"}, 400),
    ({"upload_concat": "final;"}, 400),
    ({"upload_concat": "final;/uploads/x"}, 404),
]


def test_a_bad_creation_is_refused_and_leaves_nothing(cluster: ClusterUnderTest) -> None:
    for fields, status in BAD_CREATIONS:
        assert_problem(tus("POST", "/uploads/", **fields), status)
    assert_nothing_left(cluster)
    assert not Resumable.objects.exists()


def test_a_version_that_is_not_known_is_named(cluster: ClusterUnderTest) -> None:
    response = Client().patch(begin(5), b"x")
    assert assert_problem(response, 412)["code"] == "unsupported_protocol"
    assert response.headers["Tus-Version"] == "1.0.0"


def test_a_body_of_another_type_is_refused(cluster: ClusterUnderTest) -> None:
    address = begin(5)
    assert_problem(tus("PATCH", address, b"x", upload_offset="0", content_type="text/plain"), 415)
    assert_problem(tus("PATCH", address, b"x", upload_offset="0", content_encoding="gzip"), 415)
    assert_problem(tus("POST", "/uploads/", b"x", upload_length="5", content_type="text/plain"), 415)


def test_an_upload_is_ended_with_all_that_it_had(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SEGMENT_BYTES", CHUNK_SIZE)
    address = begin(len(DATA))
    append(address, 0, DATA[:-1])
    assert Segment.objects.count() == 5
    cluster.ingest()
    assert tus("DELETE", address).status_code == 204
    assert_nothing_left(cluster)
    assert not Job.objects.filter(kind=Job.Kind.INGEST_SEGMENT).exists()
    for response in (tus("HEAD", address), tus("PATCH", address, b"x", upload_offset="5"), tus("DELETE", address)):
        assert response.status_code == 404
    assert assert_problem(Client().get(address), 404)["code"] == "no_such_upload"


def test_an_upload_is_ended_while_it_waits_for_its_hash(cluster: ClusterUnderTest) -> None:
    address = begin(5)
    append(address, 0, b"12345")
    assert tus("DELETE", address).status_code == 204
    cluster.ingest()
    assert_nothing_left(cluster)
    assert Job.objects.get().state == Job.State.CANCELLED


def test_what_is_stored_already_stays_when_its_upload_is_ended(workers: ClusterUnderTest) -> None:
    address = begin(5)
    append(address, 0, b"12345")
    assert tus("DELETE", address).status_code == 204
    assert workers.download(File.objects.get()) == b"12345"


def test_a_method_may_be_named_in_a_field(cluster: ClusterUnderTest) -> None:
    address = begin(5)
    response = tus("POST", address, b"12", upload_offset="0", x_http_method_override="PATCH")
    assert (response.status_code, offset_of(address)) == (204, 2)
    assert tus("POST", address, x_http_method_override="DELETE").status_code == 204
    assert_problem(tus("POST", address), 405)


def test_parts_are_joined_in_their_order(cluster: ClusterUnderTest) -> None:
    cuts = [(0, 5000), (5000, 5000), (5000, len(DATA))]
    parts = []
    for start, stop in cuts:
        address = begin(stop - start, upload_concat="partial")
        append(address, 0, DATA[start:stop])
        parts.append(address)
    assert status_of(parts[0])["stage"] == "sent"
    assert tus("HEAD", parts[0]).headers["Upload-Concat"] == "partial"
    assert not Job.objects.exists()
    concat = "final;" + " ".join([parts[0], f"http://elsewhere{parts[1]}", parts[2]])
    response = tus("POST", "/uploads/", upload_concat=concat, upload_metadata=encoded(filename="joined"))
    assert response.status_code == 201
    address = path_of(response)
    head = tus("HEAD", address)
    assert "Upload-Offset" not in head.headers
    assert (head.headers["Upload-Length"], head.headers["Upload-Concat"]) == (
        str(len(DATA)),
        "final;" + " ".join(parts),
    )
    assert_problem(tus("PATCH", address, b"x", upload_offset="0"), 400, "Upload-Concat")
    assert Upload.objects.get(pk=status_of(address)["id"]).reserved == 3 * len(DATA)
    cluster.ingest()
    assert cluster.download(File.objects.get(name="joined")) == DATA
    assert offset_of(address) == len(DATA)
    assert {tus("HEAD", part).status_code for part in parts} == {404}, "their bytes are not needed any more"
    assert cluster.staged() == []
    assert not Upload.objects.exists()


def test_a_part_that_is_not_whole_or_no_part_is_not_joined(cluster: ClusterUnderTest) -> None:
    part = begin(5, upload_concat="partial")
    append(part, 0, b"1234")
    whole = begin(5)
    append(whole, 0, b"12345")
    for address in (part, whole):
        response = tus("POST", "/uploads/", upload_concat=f"final;{address}")
        assert_problem(response, 400, "Upload-Concat")
    append(part, 4, b"5")
    twice = tus("POST", "/uploads/", upload_concat=f"final;{part} {part}")
    assert_problem(twice, 400, "Upload-Concat")


def test_a_part_that_is_ended_before_it_is_joined_ends_the_whole(cluster: ClusterUnderTest) -> None:
    part = begin(5, upload_concat="partial")
    append(part, 0, b"12345")
    whole = path_of(tus("POST", "/uploads/", upload_concat=f"final;{part}"))
    assert tus("DELETE", part).status_code == 204
    cluster.ingest()
    assert status_of(whole)["stage"] == "failed"
    tus("DELETE", whole)
    assert_nothing_left(cluster)


def test_segments_run_ahead_of_a_large_body(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SEGMENT_BYTES", 2 * CHUNK_SIZE)
    address = begin(len(DATA))
    for start in range(0, len(DATA) - 17, 3000):
        append(address, start, DATA[start : min(start + 3000, len(DATA) - 17)])
        cluster.ingest()
    assert [part.position for part in Segment.objects.order_by("position")] == [0, 2]
    assert not Content.objects.exists()
    append(address, len(DATA) - 17, DATA[-17:])
    cluster.ingest()
    assert cluster.download(File.objects.get()) == DATA
    assert not Segment.objects.exists()
    assert cluster.false_negatives() == []


def test_bytes_that_staging_has_changed_do_not_become_a_file(cluster: ClusterUnderTest) -> None:
    address = begin(len(DATA))
    append(address, 0, DATA)
    (name,) = cluster.staged()
    path = configuration().staging_dir / name
    path.write_bytes(DATA[:-1] + b"?")
    cluster.ingest()
    shown = status_of(address)
    assert (shown["stage"], shown["error"]["title"]) == ("failed", "Staging damaged")
    assert not File.objects.exists()


def test_staged_bytes_that_are_gone_end_the_upload(cluster: ClusterUnderTest) -> None:
    address = begin(len(DATA))
    append(address, 0, DATA[:100])
    (name,) = cluster.staged()
    (configuration().staging_dir / name).unlink()
    response = tus("PATCH", address, DATA[100:], upload_offset="100")
    assert assert_problem(response, 404)["code"] == "no_such_upload"


def test_bytes_behind_the_offset_do_not_count(cluster: ClusterUnderTest) -> None:
    """A process that died may have staged bytes behind the offset. After a power cut, bytes behind the offset may be
    wrong.
    """
    address = begin(len(DATA))
    append(address, 0, DATA[:100])
    (name,) = cluster.staged()
    with (configuration().staging_dir / name).open("ab") as staged:
        staged.write(bytes(100_000))
    assert offset_of(address) == 100
    append(address, 100, DATA[100:200])
    assert (configuration().staging_dir / name).stat().st_size == 200
    append(address, 200, DATA[200:])
    cluster.ingest()
    assert cluster.download(File.objects.get()) == DATA
