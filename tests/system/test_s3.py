"""The S3 door of a real installation, by boto3 over real sockets."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from tests.support.system import System, free_port, wait_until

pytestmark = pytest.mark.system

PART = 8 << 20


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def system(make_system: Callable[..., System], port: int) -> System:
    made = make_system(S3_PORT=str(port))
    made.start()
    return made


@pytest.fixture(scope="module")
def s3(system: System, port: int) -> Any:
    made = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="any",
        aws_secret_access_key="text",
        region_name="occ",
        config=Config(s3={"addressing_style": "path"}, proxies={}),
    )
    made.create_bucket(Bucket="bucket")
    return made


def test_the_start_says_where_the_door_is(system: System, port: int) -> None:
    assert f"S3        http://127.0.0.1:{port}" in system.output()


def test_a_large_object_comes_back(s3: Any) -> None:
    data = os.urandom(PART) * 5 + b"end"
    s3.upload_fileobj(io.BytesIO(data), "bucket", "a large/ö+object", Config=TransferConfig(multipart_chunksize=PART))
    head = s3.head_object(Bucket="bucket", Key="a large/ö+object")
    assert (head["ContentLength"], head["ETag"][-3:]) == (len(data), '-6"')
    target = io.BytesIO()
    s3.download_fileobj("bucket", "a large/ö+object", target)
    assert hashlib.sha256(target.getvalue()).digest() == hashlib.sha256(data).digest()


def test_one_put_is_stored_in_segments(s3: Any) -> None:
    data = os.urandom(40 << 20)
    s3.put_object(Bucket="bucket", Key="segments", Body=data)
    assert s3.get_object(Bucket="bucket", Key="segments")["Body"].read() == data


def test_metadata_keeps_its_underscores(s3: Any) -> None:
    metadata = {"a-b": "1", "a_b": "2", "a%b": "3"}
    s3.put_object(Bucket="bucket", Key="metadata", Body=b"x", Metadata=metadata)
    assert s3.head_object(Bucket="bucket", Key="metadata")["Metadata"] == metadata


def test_the_doors_are_apart(system: System, s3: Any, port: int) -> None:
    """A bucket may have the name of a path of the API. The API does not answer with the bucket's objects."""
    s3.create_bucket(Bucket="files")
    s3.put_object(Bucket="files", Key="health", Body=b"bytes")
    assert s3.get_object(Bucket="files", Key="health")["Body"].read() == b"bytes"
    connection = http.client.HTTPConnection("127.0.0.1", system.port)
    connection.request("GET", "/files/health")
    assert connection.getresponse().status in (400, 404)


def test_a_body_is_asked_for_only_if_it_is_wanted(s3: Any, port: int) -> None:
    """A refused client that waits for ``100 Continue`` sends no byte of its body."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("PUT", "/nosuchbucket/key")
    connection.putheader("Content-Length", "5000000")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, b"NoSuchBucket" in answer.read()) == (404, True)


def test_a_connection_is_kept(s3: Any, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(3):
        connection.request("PUT", f"/bucket/kept{number}", body=b"bytes")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        if number == 0:
            local = connection.sock.getsockname()
    assert connection.sock.getsockname() == local
    connection.request("DELETE", "/bucket/kept0")
    assert connection.getresponse().status == 204


def test_the_door_counts(system: System, s3: Any) -> None:
    s3.list_buckets()

    def told() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", system.port)
        connection.request("GET", "/metrics")
        return b'route="s3:ListBuckets"' in connection.getresponse().read()

    wait_until(told, 10)


def test_readers_never_see_a_mixture(s3: Any) -> None:
    """Every answer has the bytes that one writer has sent, and the ETag and the metadata that belong to them."""
    bodies = {letter: letter.encode() * (300_000 + ord(letter)) for letter in "abcd"}
    where = {"Bucket": "bucket", "Key": "overwritten"}
    s3.put_object(**where, Body=bodies["a"], Metadata={"letter": "a"})

    def write(letter: str) -> None:
        for _ in range(5):
            s3.put_object(**where, Body=bodies[letter], Metadata={"letter": letter})

    with ThreadPoolExecutor(len(bodies)) as pool:
        writers = [pool.submit(write, letter) for letter in bodies]
        reads = 0
        while not all(writer.done() for writer in writers) or reads < 10:
            found = s3.get_object(**where)
            body = bodies[found["Metadata"]["letter"]]
            assert found["Body"].read() == body
            assert found["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
            reads += 1
        for writer in writers:
            writer.result()


def test_what_was_answered_survives_the_death_of_every_process_of_the_door(system: System, s3: Any) -> None:
    """Clients write while processes are killed. Each object that was acknowledged is whole, and is listed."""
    acknowledged: dict[str, bytes] = {}
    ended = threading.Event()

    def write(number: int) -> None:
        for turn in count():
            if ended.is_set():
                return
            key, data = f"killed/{number}-{turn}", os.urandom(50_000)
            with suppress(Exception):
                s3.put_object(Bucket="bucket", Key=key, Body=data)
                acknowledged[key] = data

    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pool.submit(write, number)
        try:
            for kill in range(4):
                before = len(acknowledged)
                wait_until(lambda before=before: len(acknowledged) > before + 5, 60)  # type: ignore[misc]
                for pid in system.children("api" if kill % 2 else "worker"):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        finally:
            ended.set()
    wait_until(system.is_ready, 60)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="killed/")
    listed = {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}
    assert acknowledged.keys() <= listed.keys()
    assert set(listed.values()) == {50_000}
    for key, data in acknowledged.items():
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == data


def test_a_port_that_is_taken_stops_the_start(system: System, make_system: Callable[..., System]) -> None:
    other = make_system(S3_PORT=str(system.port))
    process = other.serve()
    assert process.wait(60) == 1
    assert "set another S3_PORT or HOST" in other.output()
