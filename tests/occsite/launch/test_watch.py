"""The terminal gets one line when /health reports a trouble, one line when the trouble ends, and no other line about
it.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from occsite.launch.watch import Watch, ask

HEALTHY: dict[str, Any] = {"status": "healthy", "nodes": 5, "ready": True}


def degraded(*words: str) -> dict[str, Any]:
    return {"status": "degraded", "nodes": 4, "ready": True, "degraded": list(words)}


def failing(**parts: str) -> dict[str, Any]:
    return {"status": "unhealthy", "nodes": 5, "ready": False, "failing": parts}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def down() -> set[str]:
    return set()


@pytest.fixture
def watch(said: list[str], down: set[str]) -> Watch:
    return Watch("http://127.0.0.1:1", said.append, lambda: down)


def see(watch: Watch, *documents: dict[str, Any] | None) -> None:
    for document in documents:
        watch.see(document)


def test_nothing_is_said_of_a_healthy_system(watch: Watch, said: list[str]) -> None:
    see(watch, HEALTHY, HEALTHY)
    assert said == []


def test_a_trouble_is_announced_once_and_its_end_once(watch: Watch, said: list[str]) -> None:
    see(watch, *[failing(disk="the disk is full; make room")] * 3)
    assert said == ["the disk is full; make room"]
    see(watch, HEALTHY, HEALTHY, HEALTHY)
    assert said == ["the disk is full; make room", "over: the disk is full; make room"]


def test_what_comes_and_goes_is_not_worth_a_line(watch: Watch, said: list[str]) -> None:
    see(watch, HEALTHY, failing(disk="full"), HEALTHY, failing(disk="full"), HEALTHY)
    assert said == []
    see(watch, failing(disk="full"), failing(disk="full"), HEALTHY, failing(disk="full"))
    assert said == ["full"]


def test_numbers_that_change_are_no_other_trouble(watch: Watch, said: list[str]) -> None:
    see(watch, *[degraded(f"{count} chunks are short: {count} copies to make") for count in (7, 5, 1)])
    assert said == ["5 chunks are short: 5 copies to make"]


def test_each_node_is_a_trouble_of_its_own(watch: Watch, said: list[str]) -> None:
    see(watch, *[degraded("node_003 is offline: gone", "node_004 is offline: gone")] * 2)
    see(watch, *[degraded("node_004 is offline: gone")] * 2)
    assert said == ["node_003 is offline: gone", "node_004 is offline: gone", "over: node_003 is offline: gone"]


def test_what_is_degraded_is_told_of_once_nothing_fails(watch: Watch, said: list[str]) -> None:
    full = {**failing(disk="the disk is full"), "degraded": ["node_000 is full", "node_001 is full"]}
    see(watch, full, full, full)
    assert said == ["the disk is full"]
    see(watch, *[degraded("node_001 is full")] * 2)
    assert said[1:] == ["node_001 is full", "over: the disk is full"]


def test_words_stay_in_a_line(watch: Watch, said: list[str]) -> None:
    see(watch, *[failing(disk="two\nlines")] * 2)
    assert said == ["two lines"]


def test_silence_ends_no_other_trouble(watch: Watch, said: list[str]) -> None:
    see(watch, *[failing(disk="full")] * 2, None, None, None)
    assert said == ["full", "the API does not answer; its log may say why"]
    see(watch, *[failing(disk="full")] * 2)
    assert said[2:] == ["over: the API does not answer; its log may say why"]


def test_the_end_of_a_program_is_not_told_twice(watch: Watch, said: list[str], down: set[str]) -> None:
    down.add("api")
    see(watch, None, None, None)
    assert said == []
    down.clear()
    see(watch, None, None)
    assert said == ["the API does not answer; its log may say why"]


@pytest.mark.parametrize(
    ("status", "body", "document"),
    [
        (200, b'{"ready": true}', {"ready": True}),
        (503, b'{"ready": false}', {"ready": False}),
        (200, b"[]", None),
        (502, b"Bad Gateway", None),
    ],
)
def test_health_is_read_whatever_its_status(status: int, body: bytes, document: dict[str, Any] | None) -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/health"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert ask(f"http://127.0.0.1:{server.server_port}") == document
        thread.join()
    assert ask(f"http://127.0.0.1:{server.server_port}") is None
