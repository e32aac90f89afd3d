"""Bodies that are cut, stall, grow or are malformed get a fitting 4xx and leave nothing behind."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from storage.api.uploads import bodies
from tests.support.api import Socket, assert_nothing_left, assert_problem
from tests.support.cluster import ClusterUnderTest

MULTIPART = "multipart/form-data; boundary=BB"
FORM = (
    b'--BB\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nthe bytes\r\n'
    b'--BB\r\nContent-Disposition: form-data; name="replication_factor"\r\n\r\n2\r\n--BB--\r\n'
)
JSON = "application/json"


def post(path: str, body: Socket, content_type: str, **environ: str) -> Any:
    headers: dict[str, Any] = {"wsgi.input": body, "CONTENT_TYPE": content_type, **environ}
    return Client().post(path, **headers)


def test_a_form_that_is_cut_anywhere_is_a_400(workers: ClusterUnderTest) -> None:
    for cut in (*range(1, len(FORM) - 4, 12), len(FORM) - 4):
        assert_problem(post("/upload", Socket(FORM[:cut]), MULTIPART, CONTENT_LENGTH=str(len(FORM))), 400)
        assert_problem(post("/upload", Socket(FORM[:cut]), MULTIPART, CONTENT_LENGTH=str(cut)), 400)
    assert_nothing_left(workers)


def test_a_reset_connection_is_a_400(workers: ClusterUnderTest) -> None:
    body = Socket(FORM[:110], ConnectionResetError())
    assert_problem(post("/upload", body, MULTIPART, CONTENT_LENGTH=str(len(FORM))), 400)
    assert_nothing_left(workers)


def test_a_client_that_stalls_is_a_408(cluster: ClusterUnderTest) -> None:
    rebalance = f"/rebalance/{cluster.upload(b'known').content.file_hash}"
    for path, content_type in (("/upload", MULTIPART), (rebalance, MULTIPART), (rebalance, JSON)):
        body = Socket(FORM[:110], TimeoutError())
        assert_problem(post(path, body, content_type, CONTENT_LENGTH="500"), 408)
    assert cluster.staged() == []


def test_a_chunked_form_is_an_upload(workers: ClusterUnderTest) -> None:
    response = post("/upload", Socket(FORM), MULTIPART, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="")
    assert response.status_code == 201
    assert (response.json()["file_size"], response.json()["replication_factor"]) == (9, 2)


def test_a_chunked_form_that_is_cut_is_a_400(workers: ClusterUnderTest) -> None:
    body = Socket(FORM[:-30], OSError("no more chunks"))
    assert_problem(post("/upload", body, MULTIPART, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH=""), 400)
    assert_nothing_left(workers)


def test_a_form_of_garbage_is_a_400(workers: ClusterUnderTest) -> None:
    for content_type in (MULTIPART, "multipart/form-data", "multipart/form-data; boundary=\xff"):
        assert_problem(Client().post("/upload", b"garbage", content_type=content_type), 400)
    assert_nothing_left(workers)


def test_a_form_of_thousands_of_fields_is_a_400(workers: ClusterUnderTest) -> None:
    fields = b"".join(b'--BB\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n1\r\n' % i for i in range(1200))
    assert_problem(Client().post("/upload", fields + FORM, content_type=MULTIPART), 400)
    assert_nothing_left(workers)


def test_a_field_of_megabytes_is_a_413(workers: ClusterUnderTest) -> None:
    field = b'--BB\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"1" * 3_000_000 + b"\r\n"
    assert_problem(Client().post("/upload", field + FORM, content_type=MULTIPART), 413)
    assert_nothing_left(workers)


NO_FACTORS: list[str | bytes] = [
    "{bad",
    "[]",
    "null",
    "3",
    '"3"',
    '{"replication_factor": true}',
    '{"replication_factor": 3.5}',
    '{"replication_factor": 1e400}',
    '{"replication_factor": NaN}',
    '{"replication_factor": null}',
    '{"replication_factor": {}}',
    '{"replication_factor": "\\u0000"}',
    '{"replication_factor": %s}' % ("9" * 4000),
    '{"replication_factor": %s}' % ("9" * 5000),
    '{"replication_factor": 0}',
    '{"replication_factor": 6}',
    "[" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    b"\xff\xfe",
]


def test_json_that_is_no_factor_is_a_400(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"known")
    for body in NO_FACTORS:
        assert_problem(Client().post(f"/rebalance/{file.content.file_hash}", body, content_type=JSON), 400)
    file.refresh_from_db()
    assert file.replication_factor == 3


def test_json_shorter_than_declared_is_a_400(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"known")
    body = Socket(b'{"replication_factor": 1}')
    assert_problem(post(f"/rebalance/{file.content.file_hash}", body, JSON, CONTENT_LENGTH="50"), 400)
    body = Socket(b"replication_factor=1")
    urlencoded = "application/x-www-form-urlencoded"
    assert_problem(post(f"/rebalance/{file.content.file_hash}", body, urlencoded, CONTENT_LENGTH="50"), 400)
    file.refresh_from_db()
    assert file.replication_factor == 3


def test_chunked_json_is_read(workers: ClusterUnderTest) -> None:
    file = workers.upload(b"known")
    path = f"/rebalance/{file.content.file_hash}"
    body = Socket(b'{"replication_factor": 2}')
    response = post(path, body, JSON, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="")
    assert response.json()["replication_factor"] == 2


def test_json_of_megabytes_is_a_413(cluster: ClusterUnderTest) -> None:
    path = f"/rebalance/{cluster.upload(b'known').content.file_hash}"
    large = json.dumps({"a": "x" * bodies.SMALL})
    assert_problem(Client().post(path, large, content_type=JSON), 413)
    endless = Socket(large.encode())
    assert_problem(post(path, endless, JSON, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH=""), 413)
