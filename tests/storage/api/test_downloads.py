"""GET /download/<file_hash>."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from django.test import Client as DjangoClient

from storage.api.downloads import answer as downloads
from storage.api.http.dispositions import attachment
from storage.api.wsgi import transfers
from tests.support.api import assert_problem
from tests.support.cluster import ClusterUnderTest, content_of

pytestmark = pytest.mark.usefixtures("either_way")


def download(file_hash: str, **headers: Any) -> Any:
    return Client().get(f"/download/{file_hash}", headers=headers)


def test_a_download_is_what_was_uploaded(cluster: ClusterUnderTest) -> None:
    data = content_of(5)
    file = cluster.upload(data, name="example.pdf")
    response = download(file.content.file_hash)
    assert response.status_code == 200
    assert b"".join(response.streaming_content) == data
    assert response.headers["Content-Length"] == str(len(data))
    assert response.headers["Content-Disposition"] == 'attachment; filename="example.pdf"'
    assert response.headers["ETag"] == f'"{file.content.file_hash}"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_download_ignores_accept(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"bytes")
    for accept in ("image/png", "application/xml", "text/html", "garbage", "a/b;q=0"):
        response = download(file.content.file_hash, Accept=accept)
        assert response.status_code == 200
        assert b"".join(response.streaming_content) == b"bytes"
        missing = download("0" * 64, Accept=accept)
        assert missing.status_code == 404
        if accept != "text/html":  # A browser gets a page.
            assert_problem(missing, 404)


def test_a_name_comes_back_as_rfc_6266_says(cluster: ClusterUnderTest) -> None:
    for name in ("é☃.txt", 'a"b', "a;b"):
        file = cluster.upload(name.encode(), name=name)
        disposition = download(file.content.file_hash).headers["Content-Disposition"]
        assert disposition == attachment(name, file.content.file_hash)


def test_the_address_may_say_the_name(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file = cluster.upload(data, name="stored.txt")
    plain = f"/download/{file.content.file_hash}"
    for name in ("other.txt", "é☃ &%.txt", "back\\slash", '"', " ", "x" * 255, "0" * 64):
        response: Any = Client().get(f"{plain}/{quote(name)}", headers={"X-Request-ID": "same"})
        assert b"".join(response.streaming_content) == data
        assert response.headers["Content-Disposition"] == attachment(name, file.content.file_hash)
        others = {**response.headers, "Content-Disposition": 'attachment; filename="stored.txt"'}
        assert others == {**Client().get(plain, headers={"X-Request-ID": "same"}).headers}
    folders: Any = Client().get(f"{plain}/a/b%20c/d.txt")
    assert folders.headers["Content-Disposition"] == 'attachment; filename="d.txt"'
    part: Any = Client().get(f"{plain}/a", headers={"Range": "bytes=5-9"})
    assert (part.status_code, b"".join(part.streaming_content)) == (206, data[5:10])
    head: Any = Client().head(f"{plain}/a")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(data)))
    known: Any = Client().get(f"{plain}/a", headers={"If-None-Match": "*"})
    assert (known.status_code, known.headers["Content-Disposition"]) == (304, 'attachment; filename="a"')


def test_an_address_whose_name_cannot_be_one_is_a_400(cluster: ClusterUnderTest) -> None:
    plain = f"/download/{cluster.upload(b'x').content.file_hash}"
    for name in ("..", "a//b", "a%2F..", "a/", "%00", "a%0D%0ASet-Cookie:%20a=b", "x" * 256):
        assert_problem(Client().get(f"{plain}/{name}"), 400, "file_name")
    assert_problem(Client().get(f"/download/{'0' * 64}/a"), 404)
    assert_problem(Client().get("/download/xyz/a"), 400, "file_hash")
    assert_problem(Client().post(f"{plain}/a"), 405)


def test_head_says_what_get_would(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(2))
    response: Any = Client().head(f"/download/{file.content.file_hash}")
    assert response.status_code == 200
    assert response.headers["Content-Length"] == str(file.content.size)
    assert response.content == b""


def test_an_empty_file_downloads(cluster: ClusterUnderTest) -> None:
    response = download(cluster.upload(b"").content.file_hash)
    assert response.headers["Content-Length"] == "0"
    assert b"".join(response.streaming_content) == b""


def test_an_unknown_hash_is_a_404_and_a_malformed_one_a_400(cluster: ClusterUnderTest) -> None:
    assert_problem(download("0" * 64), 404)
    for malformed in ("xyz", "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "%0a", "%00", "é" * 64):
        assert_problem(download(malformed), 400, "file_hash")


def test_without_the_nodes_that_hold_it_a_download_is_a_503(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"held by three")
    for node_id in cluster.holders(file.content.manifest()[0][0]):
        cluster.take_offline(node_id)
    response = download(file.content.file_hash)
    assert_problem(response, 503)
    assert int(response.headers["Retry-After"]) > 0


def test_when_every_node_says_that_it_is_gone_a_download_is_a_410(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(b"soon gone")
    chunk_hash = file.content.manifest()[0][0]
    for node_id in cluster.holders(chunk_hash):
        cluster.replica_path(node_id, chunk_hash).unlink()
    assert_problem(download(file.content.file_hash), 410)


def test_a_download_holds_a_place_until_its_body_is_closed(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_slots", BoundedSemaphore(1))
    file_hash = cluster.upload(content_of(2)).content.file_hash
    first = download(file_hash)
    assert_problem(download(file_hash), 503)
    first.close()
    for _ in range(3):
        assert_problem(download("0" * 64), 404)
        Client().head(f"/download/{file_hash}").close()
    assert download(file_hash).status_code == 200


def test_a_download_asked_of_another_host_is_refused(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["occ.example"]
    file_hash = cluster.upload(b"x").content.file_hash
    for host in ("evil.example", "a b", "", "[::1"):
        assert_problem(download(file_hash, Host=host), 400)
    assert download(file_hash, Host="occ.example:5000").status_code == 200


def test_another_site_may_download_if_it_may_use_the_api(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example"]
    response = download(cluster.upload(b"x").content.file_hash, Origin="https://app.example")
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_a_download_is_got_and_nothing_else(cluster: ClusterUnderTest) -> None:
    path = f"/download/{cluster.upload(b'x').content.file_hash}"
    assert_problem(Client().post(path), 405)
    assert Client().get(f"{path}/").headers["Location"] == path


def test_an_answer_that_cannot_be_made_holds_no_place(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "_slots", BoundedSemaphore(1))
    file = cluster.upload(b"x")
    with monkeypatch.context() as broken:
        broken.setattr(downloads, "StreamingHttpResponse", None)
        through: Any = DjangoClient().get(f"/download/{file.content.file_hash}")
    assert_problem(through, 500)
    assert download(file.content.file_hash).status_code == 200
