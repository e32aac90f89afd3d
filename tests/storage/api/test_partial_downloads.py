"""GET /download/<file_hash> with Range, If-Range, If-Match and If-None-Match."""

from __future__ import annotations

import base64
import hashlib
import random
from threading import BoundedSemaphore
from typing import Any

import pytest
from django.test import Client

from storage.api.wsgi import transfers
from storage.replicas.finding import read_verified
from tests.storage.api.test_ranges import parts_of
from tests.support.api import assert_problem
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of

pytestmark = pytest.mark.usefixtures("either_way")

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


def download(file_hash: str, **headers: str) -> Any:
    """Download a file; in the names of ``headers``, underscores stand for hyphens."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Client().get(f"/download/{file_hash}", headers=fields)


def body_of(response: Any) -> bytes:
    """The body of a response; its length must be the one in Content-Length."""
    body: bytes = b"".join(response.streaming_content)
    assert response.headers["Content-Length"] == str(len(body))
    return body


def test_ranges_are_the_slices_of_the_file(cluster: ClusterUnderTest) -> None:
    data = content_of(7)
    file_hash = cluster.upload(data).content.file_hash
    edges = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE, len(data) - 1]
    for first in edges:
        for last in (edge for edge in [*edges, len(data) + 5] if edge >= first):
            response = download(file_hash, Range=f"bytes={first}-{last}")
            assert response.status_code == 206
            assert body_of(response) == data[first : last + 1]
            assert response.headers["Content-Range"] == f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        assert body_of(download(file_hash, Range=f"bytes={first}-")) == data[first:]
        assert body_of(download(file_hash, Range=f"bytes=-{first + 1}")) == data[-first - 1 :]


def test_several_ranges_are_parts_of_one_body(cluster: ClusterUnderTest) -> None:
    data = content_of(7)
    file_hash = cluster.upload(data).content.file_hash
    draw = random.Random(7)
    for _ in range(40):
        starts = sorted(draw.sample(range(0, len(data), 50), 2 * draw.randint(2, 6)))
        slices = list(zip(starts[::2], starts[1::2], strict=True))
        asked = draw.sample(slices, len(slices))
        response = download(file_hash, Range="bytes=" + ", ".join(f"{a}-{b - 1}" for a, b in asked))
        assert response.status_code == 206
        assert "Content-Range" not in response.headers
        assert parts_of(body_of(response), response.headers["Content-Type"]) == [
            (b"application/octet-stream", b"bytes %d-%d/%d" % (a, b - 1, len(data)), data[a:b]) for a, b in slices
        ]


def test_ranges_that_overlap_or_touch_are_one(cluster: ClusterUnderTest) -> None:
    data = content_of(3)
    response = download(cluster.upload(data).content.file_hash, Range="bytes=5000-6000,10-19,0-9,15-5500")
    assert response.headers["Content-Range"] == f"bytes 0-6000/{len(data)}"
    assert body_of(response) == data[:6001]


def test_a_part_says_what_the_whole_says_of_the_file(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file_hash = cluster.upload(data, name="é.bin").content.file_hash
    whole = download(file_hash)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert whole.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Cache-Control"] == "no-cache"
    assert "Accept" not in whole.headers.get("Vary", "")
    for part in (download(file_hash, Range="bytes=0-0"), download(file_hash, Range="bytes=0-0,2-2")):
        for name in ("Accept-Ranges", "Cache-Control", "Content-Disposition", "ETag", "Last-Modified", "Repr-Digest"):
            assert part.headers[name] == whole.headers[name]
        assert part.headers["X-Content-Type-Options"] == "nosniff"


def test_what_the_file_does_not_have_is_a_416_that_says_its_size(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file_hash = cluster.upload(data).content.file_hash
    for field in (f"bytes={len(data)}-", "bytes=-0", "bytes=999999-9999999, 888888-"):
        response = download(file_hash, Range=field)
        assert_problem(response, 416)
        assert response.headers["Content-Range"] == f"bytes */{len(data)}"


def test_what_is_no_range_or_too_many_gives_the_whole_file(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file_hash = cluster.upload(data).content.file_hash
    many = "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 1000, 2))
    for field in ("bytes=5-1", "bytes=x", "lines=0-1", "", many, "bytes=0-" + "9" * 5000, "bytes=\xff-"):
        response = download(file_hash, Range=field)
        assert (response.status_code, body_of(response)) == (200, data)
        assert "Content-Range" not in response.headers


def test_an_empty_file_has_no_parts(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.upload(b"").content.file_hash
    for field in ("bytes=0-", "bytes=-1", "bytes=0-0,5-9"):
        response = download(file_hash, Range=field)
        assert (response.status_code, body_of(response)) == (200, b"")


def test_head_knows_no_ranges(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    path = f"/download/{cluster.upload(data).content.file_hash}"
    for field in ("bytes=0-0", "bytes=999999-"):
        response: Any = Client().head(path, headers={"Range": field, "X-Request-ID": "same"})
        assert (response.status_code, response.headers["Content-Length"]) == (200, str(len(data)))
        whole = Client().get(path, headers={"X-Request-ID": "same"}).headers
        assert {**response.headers} == {**whole}


# -- chunks that are read ------------------------------------------------------


def test_only_the_chunks_that_are_needed_are_read_and_none_twice(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content_of(9)
    file = cluster.upload(data)
    manifest = [chunk_hash for chunk_hash, _ in file.content.manifest()]
    read: list[str] = []

    def reads(volume: Any, chunk_hash: str) -> bytes:
        read.append(chunk_hash)
        return read_verified(volume, chunk_hash)

    monkeypatch.setattr("storage.replicas.reading.read_verified", reads)
    c = CHUNK_SIZE
    for field, positions in {
        f"bytes={c}-{2 * c - 1}": [1],
        f"bytes={2 * c - 1}-{2 * c}": [1, 2],
        f"bytes=1-1,5-5,9-9,{c - 1}-{c}": [0, 1],
        f"bytes={7 * c}-{7 * c},0-0,{7 * c + 5}-{7 * c + 6}": [0, 7],
        "bytes=-1": [8],
    }.items():
        read.clear()
        body_of(download(file.content.file_hash, Range=field))
        assert sorted(read) == sorted(manifest[position] for position in positions), field


def test_the_first_chunk_that_is_needed_is_good_before_an_answer_begins(cluster: ClusterUnderTest) -> None:
    """RACES 15: the first chunk that is needed is verified before the status line is sent."""
    data = content_of(3)
    file = cluster.upload(data)
    chunk_hash = file.content.manifest()[1][0]
    holders = cluster.holders(chunk_hash)
    for node_id in holders[1:]:
        cluster.replica_path(node_id, chunk_hash).unlink()
    path = cluster.replica_path(holders[0], chunk_hash)
    path.write_bytes(b"\0" * CHUNK_SIZE)
    assert_problem(download(file.content.file_hash, Range=f"bytes={CHUNK_SIZE}-"), 503)
    path.unlink()
    assert_problem(download(file.content.file_hash, Range=f"bytes={CHUNK_SIZE}-"), 410)
    assert body_of(download(file.content.file_hash, Range=f"bytes=0-{CHUNK_SIZE - 1}")) == data[:CHUNK_SIZE]
    assert body_of(download(file.content.file_hash, Range=f"bytes={2 * CHUNK_SIZE}-")) == data[2 * CHUNK_SIZE :]


# -- conditions ----------------------------------------------------------------


def test_who_has_it_already_is_told_so(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file_hash = cluster.upload(data).content.file_hash
    etag = f'"{file_hash}"'
    for field in (etag, f"W/{etag}", "*", f'"other", {etag}'):
        for method in ("GET", "HEAD"):
            response: Any = Client().generic(method, f"/download/{file_hash}", headers={"If-None-Match": field})
            assert (response.status_code, response.content) == (304, b"")
            assert (response.headers["ETag"], response.headers["Cache-Control"]) == (etag, "no-cache")
            assert response.headers["Content-Length"] == str(len(data))
            assert "Content-Type" not in response.headers
    for field in ('"other"', "garbage", file_hash, f'"{file_hash[:-1]}"', ""):
        assert body_of(download(file_hash, If_None_Match=field)) == data
    assert_problem(download("0" * 64, If_None_Match="*"), 404)


def test_who_wants_another_version_gets_a_412(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file_hash = cluster.upload(data).content.file_hash
    etag = f'"{file_hash}"'
    for field in ('"other"', f"W/{etag}", "garbage", ""):
        assert_problem(download(file_hash, If_Match=field), 412)
    for field in (etag, "*", f'"other", {etag}'):
        assert body_of(download(file_hash, If_Match=field)) == data


def test_conditions_are_looked_at_in_the_order_of_rfc_9110(cluster: ClusterUnderTest) -> None:
    file_hash = cluster.upload(content_of(2)).content.file_hash
    etag = f'"{file_hash}"'
    out_of_it = "bytes=999999-"
    assert download(file_hash, If_Match='"other"', If_None_Match=etag, Range=out_of_it).status_code == 412
    assert download(file_hash, If_Match=etag, If_None_Match=etag, Range=out_of_it).status_code == 304
    assert download(file_hash, If_None_Match='"other"', If_Range=etag, Range=out_of_it).status_code == 416
    assert download(file_hash, If_Range='"other"', Range=out_of_it).status_code == 200


def test_a_date_is_a_condition_as_an_entity_tag_is(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file_hash = cluster.upload(data).content.file_hash
    modified = download(file_hash).headers["Last-Modified"]
    for method in ("GET", "HEAD"):
        response: Any = Client().generic(method, f"/download/{file_hash}", headers={"If-Modified-Since": modified})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["Last-Modified"] == modified
    assert body_of(download(file_hash, If_Modified_Since=DATE)) == data
    assert_problem(download(file_hash, If_Unmodified_Since=DATE), 412)
    assert body_of(download(file_hash, If_Unmodified_Since=modified)) == data
    assert body_of(download(file_hash, Range="bytes=5-", If_Range=modified)) == data[5:]


def test_a_part_is_only_sent_to_go_with_the_same_version(cluster: ClusterUnderTest) -> None:
    data = content_of(2)
    file_hash = cluster.upload(data).content.file_hash
    etag = f'"{file_hash}"'
    assert body_of(download(file_hash, Range="bytes=5-", If_Range=etag)) == data[5:]
    for field in ('"other"', f"W/{etag}", DATE, "garbage", "", "*", f"{etag}, {etag}"):
        response = download(file_hash, Range="bytes=5-", If_Range=field)
        assert (response.status_code, body_of(response)) == (200, data), field


def test_an_answer_without_a_body_holds_no_place(cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    file_hash = cluster.upload(content_of(2)).content.file_hash
    monkeypatch.setattr(transfers, "_slots", BoundedSemaphore(1))
    with transfers.transfer():
        assert download(file_hash, If_None_Match="*").status_code == 304
        assert download(file_hash, If_Match='"other"').status_code == 412
        assert download(file_hash, Range="bytes=999999-").status_code == 416
        assert_problem(download(file_hash, Range="bytes=0-0"), 503)
    download(file_hash, Range="bytes=0-0").close()
    assert download(file_hash, Range="bytes=0-0,5-5").status_code == 206
