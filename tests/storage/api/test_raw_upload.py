"""PUT /upload/<file_name>, and POST /upload with a body that is no form: the body is the file."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from django.test import Client

from storage.models import File
from tests.support.api import Socket, WholeClient, assert_nothing_left, assert_problem
from tests.support.cluster import ClusterUnderTest, content_of

URLENCODED = "application/x-www-form-urlencoded"


def put(path: str, data: bytes, content_type: str = "", headers: Mapping[str, str] | None = None) -> Any:
    """Send a PUT request as ``curl -T`` does, by default without a Content-Type."""
    return Client().put(path, data, content_type=content_type, headers=headers, CONTENT_LENGTH=str(len(data)))


def stream(method: str, path: str, body: Socket, **environ: str) -> Any:
    environ = {"CONTENT_TYPE": "", "CONTENT_LENGTH": "", **environ}
    return Client().generic(method, path, **{**environ, "wsgi.input": body})  # type: ignore[arg-type]


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_a_new_file_answers_201_with_the_fields_of_a_form(workers: ClusterUnderTest) -> None:
    data = content_of(200)
    response = put("/upload/example.pdf?replication_factor=2", data)
    assert response.status_code == 201
    body = response.json()
    file_hash = hashlib.sha256(data).hexdigest()
    assert response.headers["Location"] == f"/files/{file_hash}"
    assert (body["file_hash"], body["file_name"], body["file_size"]) == (file_hash, "example.pdf", len(data))
    assert (body["chunks"], body["replication_factor"], body["deduplicated"]) == (200, 2, False)
    assert all(len(nodes) == 2 for nodes in body["distribution"].values())
    download: Any = Client().get(f"/download/{file_hash}")
    assert b"".join(download.streaming_content) == data
    assert workers.staged() == []


def test_content_that_is_known_answers_200_however_it_came(workers: ClusterUnderTest) -> None:
    assert put("/upload/first", b"same").status_code == 201
    for again in (
        Client().post("/upload?file_name=first", b"same", content_type="text/plain"),
        Client().post("/upload", b"same", content_type="text/plain"),
    ):
        assert (again.status_code, again.json()["deduplicated"], again.json()["file_name"]) == (200, True, "first")


def test_bytes_without_a_name_get_the_newest_name_that_they_have(workers: ClusterUnderTest) -> None:
    unnamed = put("/upload/", b"same").json()
    assert unnamed["file_name"] == unnamed["file_hash"]
    put("/upload/newest", b"same")
    assert put("/upload/", b"same").json()["file_name"] == "newest"


def test_prefer_respond_async_answers_202(cluster: ClusterUnderTest) -> None:
    response = put("/upload/later", b"later", headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    assert response.headers["Location"] == f"/jobs/{response.json()['job']}"
    cluster.ingest()
    assert Client().get(response.headers["Location"]).json()["state"] == "succeeded"


def test_any_type_but_a_form_is_a_file(workers: ClusterUnderTest) -> None:
    for content_type in ("application/octet-stream", "application/json", "text/plain", "garbage", ""):
        data = f'{{"file": "{content_type}"}}'.encode()
        response = Client().post("/upload?file_name=a.json", data, content_type=content_type)
        assert response.status_code == 201, response.content
        assert response.json()["file_hash"] == hashlib.sha256(data).hexdigest()
    # curl -X PUT --data-binary sends the type of a form with any body.
    assert put("/upload/x", b"a=b&c", content_type=URLENCODED).json()["file_size"] == 5


def test_a_form_that_is_put_is_a_415(workers: ClusterUnderTest) -> None:
    assert_problem(put("/upload/x", b"--BB--\r\n", content_type="multipart/form-data; boundary=BB"), 415)
    assert_nothing_left(workers)


def test_an_empty_file_is_a_file_but_a_bare_post_is_none(workers: ClusterUnderTest) -> None:
    response = put("/upload/empty", b"")
    assert (response.status_code, response.json()["file_size"], response.json()["file_name"]) == (201, 0, "empty")
    chunked = stream("PUT", "/upload/empty", Socket(b""), HTTP_TRANSFER_ENCODING="chunked")
    assert chunked.status_code == 200
    typed = stream("POST", "/upload", Socket(b""), CONTENT_TYPE="application/octet-stream", CONTENT_LENGTH="0")
    assert typed.status_code == 200
    assert_problem(stream("POST", "/upload", Socket(b""), CONTENT_LENGTH="0"), 400, "file")


def test_a_body_whose_length_is_not_said_is_not_an_empty_file(workers: ClusterUnderTest) -> None:
    for method, path in (("PUT", "/upload/a.txt"), ("POST", "/upload"), ("POST", "/upload?file_name=a")):
        assert_problem(stream(method, path, Socket(b"the bytes")), 411)
        assert_problem(stream(method, path, Socket(b"the bytes"), SERVER_PROTOCOL="HTTP/1.0"), 400)
    assert not File.objects.exists()


def test_a_chunked_body_is_a_file(workers: ClusterUnderTest) -> None:
    data = content_of(100)
    response = stream("PUT", "/upload/", Socket(data), HTTP_TRANSFER_ENCODING="chunked")
    assert (response.status_code, response.json()["file_size"]) == (201, len(data))


def test_the_name_is_that_of_the_path_or_of_the_query_or_the_hash(workers: ClusterUnderTest) -> None:
    names = {
        "/upload/a.txt": "a.txt",
        "/upload/a.txt?file_name=b.txt": "a.txt",
        "/upload/?file_name=b%20c.txt": "b c.txt",
        "/upload/": hashlib.sha256(b"/upload/").hexdigest(),
        "/upload/?file_name=": hashlib.sha256(b"/upload/?file_name=").hexdigest(),
        "/upload/C:%5Cx%5Cy.txt": "C:\\x\\y.txt",
        "/upload/%C3%A9%E2%98%83.txt": "é☃.txt",
        "/upload/%E2%80%AEgpj.exe": "\u202egpj.exe",
        "/upload/%20%25FF%20": " %FF ",
        "/upload/?file_name=%C2%A0%26": "\xa0&",
        f"/upload/{'x' * 251}.txt": "x" * 251 + ".txt",
    }
    for path, name in names.items():
        response = put(path, path.encode())
        assert (response.status_code, response.json()["file_name"]) == (201, name)
        shown = Client().get(f"/files/{response.json()['file_hash']}").json()
        assert shown["file_name"] == name


def test_what_is_no_name_is_a_400(workers: ClusterUnderTest) -> None:
    names = ("..", "%2e", "%00", "a%0Ab", "a/", "folder//c.txt", "..%2fetc", "%7F", "%C2%85")
    for name in (*names, "%F0%9F%98%80" * 256):
        for path in (f"/upload/{name}", f"/upload/?file_name={name}"):
            body = Socket(b"", AssertionError("the body was read"))
            assert_problem(stream("PUT", path, body, CONTENT_LENGTH="9"), 400, "file_name")
    assert_nothing_left(workers)


def test_a_name_that_is_not_utf_8_is_refused_in_words(workers: ClusterUnderTest) -> None:
    for name in ("%FF.txt", "%ED%A0%80", "%C3"):
        for path in (f"/upload/{name}", f"/upload/?file_name={name}"):
            problem = assert_problem(WholeClient().put(path, b"x"), 400)
            assert "UTF-8" in str(problem), problem
            assert "0x" not in str(problem), problem
    assert_nothing_left(workers)


def test_a_factor_that_is_none_is_a_400_before_the_body_is_read(workers: ClusterUnderTest) -> None:
    for factor in ("abc", "0", "-1", "6", "3.5", "NaN", "9" * 3000, "3%00", "%ff"):
        body = Socket(b"", AssertionError("the body was read"))
        response = stream("PUT", f"/upload/x?replication_factor={factor}", body, CONTENT_LENGTH="9")
        assert_problem(response, 400, "replication_factor")
    assert put("/upload/x?replication_factor=", b"the default").json()["replication_factor"] == 3
    assert File.objects.count() == 1


# -- digests -----------------------------------------------------------------


def test_a_digest_that_is_right_or_of_another_algorithm_is_accepted(workers: ClusterUnderTest) -> None:
    data, unknown = content_of(3), "md5=:AAAA:, unixsum=1, sha-512=garbage"
    for value in (digest(data), f"{unknown}, {digest(data)}", f" {digest(data)};a=b , {unknown}", unknown, ""):
        for field in ("Repr-Digest", "Content-Digest"):
            assert put("/upload/x", data, headers={field: value}).status_code in (200, 201), value


MALFORMED = [
    "",
    ":",
    "::",
    "AAAA",
    ":AAAA:",
    ":AA?A:",
    ":=:",
    ":é:",
    f":{'A' * 43}:",
    '"a"',
    ":A=AA:",
    f":{'A' * 4000}",
]


@pytest.mark.parametrize("field", ["Repr-Digest", "Content-Digest"])
def test_a_digest_that_is_wrong_or_malformed_is_a_400_and_leaves_nothing(workers: ClusterUnderTest, field: str) -> None:
    for data in (b"small", content_of(100)):
        assert_problem(put("/upload/x", data, headers={field: digest(b"other")}), 400, field)
        response = Client().post("/upload", data, content_type="text/plain", headers={field: digest(b"other")})
        assert_problem(response, 400, field)
        two = {"Repr-Digest": digest(data), "Content-Digest": digest(data), field: digest(b"other")}
        assert_problem(put("/upload/x", data, headers=two), 400, field)
    for value in MALFORMED:
        body = Socket(b"", AssertionError("the body was read"))
        environ = {"HTTP_" + field.upper().replace("-", "_"): f"sha-256={value}"}
        assert_problem(stream("PUT", "/upload/x", body, CONTENT_LENGTH="9", **environ), 400, field)
    assert_nothing_left(workers)


def test_the_digest_of_a_form_is_not_that_of_its_file(workers: ClusterUnderTest) -> None:
    form = b'--BB\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--BB--\r\n'
    headers = {"Content-Digest": digest(form), "Repr-Digest": digest(form)}
    response = Client().post("/upload", form, content_type="multipart/form-data; boundary=BB", headers=headers)
    assert response.status_code == 201


# -- bad bodies ----------------------------------------------------------------


def test_an_encoded_body_is_a_415_and_a_part_of_a_file_a_400(workers: ClusterUnderTest) -> None:
    for coding in ("gzip", "aws-chunked", "identity, gzip"):
        assert_problem(put("/upload/x", b"x", headers={"Content-Encoding": coding}), 415)
    # curl -C 5 -T sends this field.
    assert_problem(put("/upload/x", b"x", headers={"Content-Range": "bytes 5-5/6"}), 400, "Content-Range")
    assert_nothing_left(workers)
    assert put("/upload/x", b"x", headers={"Content-Encoding": "identity"}).status_code == 201


def test_a_body_that_is_cut_or_stalls_leaves_nothing(workers: ClusterUnderTest) -> None:
    data = content_of(100)
    for begun in (b"", data[:1000], data[:-1]):  # The first two bodies are held in memory, the third is staged.
        assert_problem(stream("PUT", "/upload/x", Socket(begun), CONTENT_LENGTH=str(len(data))), 400)
        for error, status in ((ConnectionResetError(), 400), (TimeoutError(), 408)):
            body = Socket(begun, error)
            assert_problem(stream("PUT", "/upload/x", body, CONTENT_LENGTH=str(len(data))), status)
        body = Socket(begun, OSError("no more chunks"))
        assert_problem(stream("PUT", "/upload/x", body, HTTP_TRANSFER_ENCODING="chunked"), 400)
    assert_nothing_left(workers)


def test_a_file_above_the_limit_is_a_413(workers: ClusterUnderTest, settings: Any) -> None:
    settings.OCC = dataclasses.replace(settings.OCC, max_upload_size=300_000)
    unread = Socket(b"", AssertionError("the body was read"))
    assert_problem(stream("PUT", "/upload/x", unread, CONTENT_LENGTH="300001"), 413)
    assert_problem(stream("PUT", "/upload/x", Socket(b"x" * 300_001), HTTP_TRANSFER_ENCODING="chunked"), 413)
    assert_nothing_left(workers)
    assert put("/upload/x", b"x" * 300_000).status_code == 201


def test_too_few_nodes_answer_503_and_keep_nothing(workers: ClusterUnderTest) -> None:
    for node_id in ("node_000", "node_001", "node_002", "node_003"):
        workers.take_offline(node_id)
    response = put("/upload/x", b"nowhere to go")
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0
    assert_nothing_left(workers)


def test_a_browser_is_shown_what_was_wrong(workers: ClusterUnderTest) -> None:
    for path, data in (("/upload/x?replication_factor=77", b"x"), ("/upload/..", b"x"), ("/upload/x", b"")):
        page = put(path, data, headers={"Accept": "text/html"})
        assert page.headers["Content-Type"] == "text/html; charset=utf-8", page.content
        assert page.status_code in (400, 201)
