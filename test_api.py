#!/usr/bin/env python3
"""The API's acceptance suite, against a live service: it prints a line for each check; exit status 1 if one fails.

    python test_api.py [BASE_URL]

BASE_URL may also come from the environment; the default is http://127.0.0.1:5000. Where keys are on, OCC_KEY is
``id:secret`` of a key with all scopes. The suite uploads random content,
so it can be repeated, and deletes what it made and nothing else. It needs ``requests``, which ``make test`` installs.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import requests

TIMEOUT = 120.0  # seconds for one answer
JOB_LIMIT = 120.0  # seconds for a job to end


class Api:
    """A client of one service, which counts the checks that passed and that failed."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.session = requests.Session()
        if key := os.environ.get("OCC_KEY"):
            key_id, _, secret = key.partition(":")
            self.session.auth = (key_id, secret)
        self.made: list[str] = []
        self.passed = self.failed = 0
        self.config: dict[str, Any] = {}
        self.nodes = 0

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else self.base_url + path
        return self.session.request(method, url, timeout=TIMEOUT, **options)

    def upload(self, data: bytes, name: str, factor: int | str | None = None, **headers: str) -> requests.Response:
        form = {} if factor is None else {"replication_factor": str(factor)}
        response = self.call("POST", "/upload", files={"file": (name, data)}, data=form, headers=headers)
        if response.status_code in (201, 202):
            self.made.append(response.json()["file_hash"])
        return response

    def check(self, claim: str, holds: bool, found: object = "") -> None:
        if holds:
            self.passed += 1
            print(f"ok    {claim}")
        else:
            self.failed += 1
            print(f"FAIL  {claim}: {found}")

    def check_status(self, claim: str, response: requests.Response, *expected: int) -> None:
        self.check(claim, response.status_code in expected, f"{response.status_code} {response.text[:300]}")

    def check_fields(self, claim: str, found: dict[str, Any], *names: str) -> None:
        missing = [name for name in names if name not in found]
        self.check(claim, not missing, f"missing {missing} in {found}")

    def check_problem(self, claim: str, response: requests.Response, status: int) -> None:
        kind = response.headers.get("Content-Type", "")
        self.check(claim, response.status_code == status and kind == "application/problem+json", response.text[:300])

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job after it has ended, or as it is after ``JOB_LIMIT`` seconds."""
        deadline = time.monotonic() + JOB_LIMIT
        while True:
            job: dict[str, Any] = self.call("GET", f"/jobs/{job_id}").json()
            if job["state"] in ("succeeded", "failed", "cancelled") or time.monotonic() > deadline:
                return job
            time.sleep(0.2)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(data: bytes) -> str:
    """The SHA-256 of ``data`` in the form of RFC 9530."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def health_and_status(api: Api) -> None:
    response = api.call("GET", "/health")
    health = response.json()
    api.check_status("GET /health answers 200", response, 200)
    api.check("the service is healthy and ready", health["status"] == "healthy" and health["ready"] is True, health)
    api.check("GET / links to the endpoints", "upload" in api.call("GET", "/").json())

    account = api.call("GET", "/account").json()
    api.check_fields("GET /account says what is used, and what may be", account, "owner", "scopes", "used", "quota")

    response = api.call("GET", "/status")
    api.check_status("GET /status answers 200", response, 200)
    status = response.json()
    names = ("total_nodes", "union_size", "total_chunks", "total_storage_mb", "average_replication", "level_counts")
    api.check_fields("it has the network's figures", status["network"], *names)
    api.check_fields(
        "... and the rest", status, "nodes", "config", "files_stored", "estimates", "sketch", "overlap", "counters"
    )
    api.config, api.nodes = status["config"], len(status["nodes"])
    if status["network"]["sketches"] == "trusted":
        levels = status["network"]["level_counts"]
        api.check("the level counts sum up to the size of a sketch", sum(levels) == status["sketch"]["n_prime"], levels)
        figures = ("union", "spectrum", "average_replication", "chunks_below_target")
        api.check_fields("the sketches give estimates", status["estimates"], *figures)
        union = status["estimates"]["union"]
        sound = union["saturated"] or union["lower_bound"] <= union["estimate"] <= union["upper_bound"]
        api.check("the union lies in its interval", sound, union)


def uploads(api: Api, data: bytes) -> None:
    factor, chunk_size = api.config["replication_factor"], api.config["chunk_size"]
    pieces = [sha256(data[start : start + chunk_size]) for start in range(0, len(data), chunk_size)]

    response = api.upload(data, "test.bin", factor)
    api.check_status("POST /upload answers 201", response, 201)
    body = response.json()
    api.check("success", body["success"] is True, body)
    api.check("file_hash is the SHA-256 of the content", body["file_hash"] == sha256(data), body["file_hash"])
    api.check("file_name and file_size", (body["file_name"], body["file_size"]) == ("test.bin", len(data)), body)
    api.check("chunks", body["chunks"] == len(pieces), body["chunks"])
    distribution = body["distribution"]
    api.check("the distribution names every chunk by its SHA-256", set(distribution) == set(pieces), distribution)
    spread = all(len(set(nodes)) == len(nodes) == factor for nodes in distribution.values())
    api.check("every chunk is on as many nodes as asked", spread, distribution)
    brief = api.upload(data, "test.bin", Prefer="return=minimal").json()
    api.check("Prefer: return=minimal leaves the distribution out", "distribution" not in brief, brief)

    again = api.upload(data, "test.bin")
    api.check_status("the same content and name again answer 200", again, 200)
    api.check("... deduplicated", again.json()["deduplicated"] is True, again.json())
    second = api.upload(data, "again.bin")
    api.check_status("the same content under another name answers 201", second, 201)
    api.check("... deduplicated, under that name", second.json()["file_name"] == "again.bin", second.json())
    names = api.call("GET", f"/files/{sha256(data)}").json()["names"]
    api.check("... and both names are listed", names == ["again.bin", "test.bin"], names)
    response = api.call("DELETE", f"/files/{sha256(data)}?file_name=again.bin")
    api.check_status("one name can be deleted", response, 204)

    response = api.upload(b"", "empty")
    api.check_status("an empty file is accepted", response, 200, 201)
    api.check("... and has no chunks", response.json()["chunks"] == 0, response.text)

    api.check_problem("an upload without a file is refused", api.call("POST", "/upload", files={"other": b"x"}), 400)
    api.check_problem("a factor above the nodes is refused", api.upload(b"x", "x", api.nodes + 1), 400)
    api.check_problem("a factor that is no number is refused", api.upload(b"x", "x", "three"), 400)


def raw_upload(api: Api) -> None:
    data, other = os.urandom(400_000), os.urandom(1000)
    digests = {"Repr-Digest": digest_of(data)}
    response = api.call("PUT", "/upload/raw.bin?replication_factor=1", data=data, headers=digests)
    api.made.append(sha256(data))
    api.check_status("PUT /upload/<file_name> answers 201", response, 201)
    body = response.json()
    shown = (body["file_hash"], body["file_name"], body["replication_factor"])
    api.check("the body is the file, the path its name", shown == (sha256(data), "raw.bin", 1), body)
    again = api.call("POST", "/upload", data=iter([data]), headers={"Content-Type": "application/octet-stream"})
    api.check_status("the same by POST, in chunks, answers 200", again, 200)
    refused = api.call("PUT", "/upload/x", data=other, headers=digests)
    api.check_problem("a body with another digest is refused", refused, 400)
    api.check_problem("... and not kept", api.call("GET", f"/files/{sha256(other)}"), 404)


def background_upload(api: Api) -> None:
    data = os.urandom(100_000)
    response = api.upload(data, "later.bin", Prefer="respond-async")
    api.check_status("an upload with Prefer: respond-async answers 202", response, 202)
    location = response.headers.get("Location", "")
    api.check("... and says where the job is", location == f"/jobs/{response.json()['job']}", location)
    job = api.finished(response.json()["job"])
    api.check("GET /jobs/<id> comes to succeeded", job["state"] == "succeeded", job)
    api.check("the file is there", api.call("GET", f"/download/{sha256(data)}").content == data)
    api.check_problem("an unknown job answers 404", api.call("GET", "/jobs/none"), 404)


def downloads(api: Api, data: bytes) -> None:
    path = f"/download/{sha256(data)}"
    response = api.call("GET", path)
    api.check_status("GET /download/<file_hash> answers 200", response, 200)
    api.check("it gives the bytes back", response.content == data, f"{len(response.content)} bytes")
    api.check("Content-Length", response.headers.get("Content-Length") == str(len(data)), response.headers)
    api.check("ETag is the hash", response.headers.get("ETag") == f'"{sha256(data)}"', response.headers)
    disposition = response.headers.get("Content-Disposition", "")
    api.check("Content-Disposition has the name", 'filename="test.bin"' in disposition, disposition)
    head = api.call("HEAD", path)
    api.check("HEAD has the length and no body", head.headers["Content-Length"] == str(len(data)) and not head.content)
    api.check("Repr-Digest is the hash too", response.headers.get("Repr-Digest") == digest_of(data), response.headers)

    part = api.call("GET", path, headers={"Range": "bytes=1000-299999"})
    api.check_status("a range answers 206", part, 206)
    api.check("it gives these bytes", part.content == data[1000:300_000], f"{len(part.content)} bytes")
    shown = part.headers.get("Content-Range")
    api.check("... and says which they are", shown == f"bytes 1000-{min(len(data), 300_000) - 1}/{len(data)}", shown)
    parts = api.call("GET", path, headers={"Range": "bytes=0-9,-10"})
    kind = parts.headers.get("Content-Type", "")
    api.check("several ranges are parts of one body", kind.startswith("multipart/byteranges; boundary="), kind)
    beyond = api.call("GET", path, headers={"Range": f"bytes={len(data)}-"})
    api.check_problem("a range beyond the end answers 416", beyond, 416)
    etag = response.headers.get("ETag", "")
    known = api.call("GET", path, headers={"If-None-Match": etag})
    api.check("what the client has already answers 304", (known.status_code, known.content) == (304, b""), known)
    other = api.call("GET", path, headers={"If-Match": '"another"'})
    api.check_problem("what the client does not want answers 412", other, 412)

    unknown = sha256(os.urandom(32))
    api.check_problem("an unknown hash answers 404", api.call("GET", f"/download/{unknown}"), 404)
    api.check_problem("a malformed hash answers 400", api.call("GET", "/download/abc"), 400)


def listed(api: Api, file_hash: str, limit: int = 1000) -> dict[str, Any] | None:
    """The file's entry in the list, which is read page by page."""
    url = f"/files?limit={limit}"
    while url:
        page = api.call("GET", url).json()
        for entry in page["files"]:
            if entry["file_hash"] == file_hash:
                return dict(entry)
        url = page["next"] or ""
    return None


def files(api: Api, data: bytes) -> None:
    file_hash = sha256(data)
    response = api.call("GET", "/files?limit=1")
    api.check_status("GET /files answers 200", response, 200)
    body = response.json()
    api.check("it counts the files", body["total_files"] >= 2, body["total_files"])
    api.check("a page has as many as asked, and leads to the next", len(body["files"]) == 1 and body["next"], body)
    entry = listed(api, file_hash) or {}
    names = ("file_hash", "file_name", "file_size", "chunks", "retrievable", "min_replication", "avg_replication")
    api.check_fields("the list has the file", entry, *names)
    api.check("... which is retrievable", entry.get("retrievable") is True, entry)
    api.check_problem("a page of no size is refused", api.call("GET", "/files?limit=0"), 400)

    response = api.call("PATCH", f"/files/{file_hash}", json={"file_name": "renamed.bin"})
    api.check_status("PATCH /files/<file_hash> answers 200", response, 200)
    shown = api.call("GET", f"/files/{file_hash}").json()
    api.check("the file has its new name", shown["file_name"] == "renamed.bin", shown)
    stale = api.call("DELETE", f"/files/{sha256(data)}", headers={"If-Match": '"another version"'})
    api.check_problem("a deletion of another version is refused", stale, 412)
    api.check_problem("a parameter that is not known is refused", api.call("GET", "/files?limits=1"), 400)


def verify(api: Api, data: bytes) -> None:
    factor = api.config["replication_factor"]
    for query, claim in (("", "GET /verify/<file_hash>"), ("?deep=true", "... with deep=true")):
        response = api.call("GET", f"/verify/{sha256(data)}{query}")
        api.check_status(f"{claim} answers 200", response, 200)
        body = response.json()
        api.check("it is retrievable, and nothing is missing", body["retrievable"] and not body["missing_chunks"], body)
        api.check("min, avg and max are the factor", set(body["replication"].values()) == {factor}, body["replication"])
        sizes = sum(chunk["size"] for chunk in body["chunks"])
        api.check("the chunks sum up to the file", sizes == len(data), sizes)
    chunk = body["chunks"][0]
    response = api.call("GET", f"/route/{chunk['hash']}")
    api.check_status("GET /route/<chunk_hash> answers 200", response, 200)
    candidates = response.json()["candidates"]
    api.check("it names every node", len(candidates) == api.nodes, candidates)
    chances = {candidate["node_id"]: candidate["probability"] for candidate in candidates}
    api.check("those that hold the chunk are probable", all(chances[node] > 0 for node in chunk["nodes"]), candidates)
    api.check_problem("an unknown chunk answers 404", api.call("GET", f"/route/{'0' * 64}"), 404)


def rebalance(api: Api, data: bytes) -> None:
    path = f"/rebalance/{sha256(data)}"
    usual = api.config["replication_factor"]
    for factor in (min(api.nodes, usual + 1), 1, usual):
        response = api.call("POST", path, json={"replication_factor": factor})
        api.check_status(f"POST /rebalance/<file_hash> to {factor} answers 200", response, 200, 202)
        body = response.json()
        if response.status_code == 202:
            api.check("its job succeeds", api.finished(body["job"])["state"] == "succeeded")
        else:
            counts = {len(nodes) for nodes in body["new_distribution"].values()}
            api.check("every chunk has that many copies", counts == {factor}, counts)
        found = api.call("GET", f"/verify/{sha256(data)}?deep=true").json()["replication"]
        api.check("the volumes say so too", found["min"] == found["max"] == factor, found)
    api.check("the file is whole", api.call("GET", f"/download/{sha256(data)}").content == data)
    refused = api.call("POST", path, json={"replication_factor": api.nodes + 1})
    api.check_problem("a factor above the nodes is refused", refused, 400)


def delete(api: Api, data: bytes) -> None:
    file_hash = sha256(data)
    api.check_status("DELETE /files/<file_hash> answers 204", api.call("DELETE", f"/files/{file_hash}"), 204)
    api.check_problem("the file is gone", api.call("GET", f"/download/{file_hash}"), 404)
    api.check("the list no longer has it", listed(api, file_hash) is None)
    api.check_problem("a second DELETE answers 404", api.call("DELETE", f"/files/{file_hash}"), 404)


def errors(api: Api) -> None:
    api.check_problem("an unknown path answers 404", api.call("GET", "/nowhere"), 404)
    api.check_problem("a wrong method answers 405", api.call("PUT", "/upload"), 405)


def run(base_url: str) -> int:
    """Run all parts, and return the exit status. A part that cannot go on counts as failed, and the next part runs."""
    api = Api(base_url)
    try:
        health_and_status(api)
    except (requests.RequestException, LookupError, ValueError) as error:
        print(f"FAIL  {api.base_url} is no service that can be tested: {error!r}")
        return 1
    data = os.urandom(3 * int(api.config["chunk_size"]) + 12_345)
    parts: list[tuple[str, Callable[[], None]]] = [
        ("upload", lambda: uploads(api, data)),
        ("upload without a form", lambda: raw_upload(api)),
        ("upload in the background", lambda: background_upload(api)),
        ("download", lambda: downloads(api, data)),
        ("files", lambda: files(api, data)),
        ("verify", lambda: verify(api, data)),
        ("rebalance", lambda: rebalance(api, data)),
        ("delete", lambda: delete(api, data)),
        ("errors", lambda: errors(api)),
    ]
    for name, part in parts:
        print(f"-- {name}")
        try:
            part()
        except (requests.RequestException, LookupError, TypeError, ValueError) as error:
            api.check(f"{name} runs to its end", False, repr(error))
    for file_hash in api.made:
        api.call("DELETE", f"/files/{file_hash}")
    print(f"\n{api.passed} passed, {api.failed} failed")
    return int(api.failed > 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BASE_URL", "http://127.0.0.1:5000")))
