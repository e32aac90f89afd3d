"""Multipart forms as clients write them, and malformed forms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from storage.api.uploads import bodies
from storage.api.uploads.bodies import BodyStream, read_form
from storage.exceptions import BodyTooLarge
from tests.support.api import Socket

MULTIPART = "multipart/form-data; boundary=BB"


class Pieces(Socket):
    """A socket that gives a body in pieces of ``size`` bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, size: int) -> bytes:
        return super().read(min(size, self._size))


def read(form: bytes, size: int = 1 << 20, content_type: str = MULTIPART) -> tuple[dict[str, str], dict[str, bytes]]:
    """Parse a form; returns its fields, and file name → bytes of each file in the field `file`."""
    files: dict[str, bytearray] = {}

    def begin_file(field: str, name: str) -> Any:
        return files.setdefault(name, bytearray()).extend if field == "file" else None

    environ = {"wsgi.input": Pieces(form, size), "CONTENT_LENGTH": str(len(form)), "CONTENT_TYPE": content_type}
    stream = BodyStream(environ)
    stream.allow(1 << 30)
    return read_form(environ, stream, begin_file), {name: bytes(data) for name, data in files.items()}


def part(disposition: str, data: bytes, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return b"--BB\r\n" + "\r\n".join([*lines, "", ""]).encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--BB--\r\n"


LIKE_A_BOUNDARY = st.sampled_from([b"\r\n", b"--BB", b"\r\n--B", b"\r", b"\n", b"--", b"\r\n--BA--", b"x" * 9])


@given(st.lists(LIKE_A_BOUNDARY, max_size=12).map(b"".join), st.integers(1, 40))
def test_a_form_says_the_same_in_pieces_of_any_size(data: bytes, size: int) -> None:
    if b"\r\n--BB" in b"\r\n" + data:
        data = data.replace(b"--BB", b"--CC")
    whole = form(part('name="a"', b"1"), part('name="file"; filename="x"', data), part('name="b"', b"\xc3\xa9"))
    assert read(whole, size) == ({"a": "1", "b": "é"}, {"x": data})


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('name="file"; filename="a b.txt"', "a b.txt"),
        ("name=file; filename=a.txt", "a.txt"),
        ('filename="a.txt"; name="file"', "a.txt"),
        # The parser accepts any name; ``valid_name`` refuses this name later.
        ('name="file"; filename="../\xff"', "../\xff"),
        ('name="file"; filename="100%.txt"', "100%.txt"),
        # The client "requests" with an older urllib3 sends ``filename*`` like this.
        ("name=\"file\"; filename*=utf-8''na%C3%AFve.txt", "naïve.txt"),
        ('name="file"; filename="é☃.txt"', "é☃.txt"),
    ],
)
def test_a_file_has_the_name_that_its_client_meant(disposition: str, name: str) -> None:
    assert read(form(part(disposition, b"data"))) == ({}, {name: b"data"})


def test_what_is_no_file_of_ours_is_skipped() -> None:
    parts = (
        part('name="other"; filename="a"', b"1"),
        part('name="file"; filename=""', b"3"),
        part('name="n"', b"4"),
        part('name="n"', b"5", "Content-Transfer-Encoding: 8bit"),
    )
    assert read(b"preamble\r\n" + form(*parts) + b"epilogue") == ({"file": "3", "n": "5"}, {})


def test_a_byte_that_is_not_utf_8_stays_visible() -> None:
    field = part('name="a"', b"\xff")
    file = part('name="file"; filename="?"', b"data").replace(b"?", b"\xff")
    assert read(form(field, file)) == ({"a": "\udcff"}, {"\udcff": b"data"})


def test_a_boundary_may_be_quoted() -> None:
    whole = form(part('name="a"', b"1")).replace(b"BB", b"B; B")
    assert read(whole, content_type='multipart/form-data; charset=utf-8; boundary="B; B"')[0] == {"a": "1"}


@pytest.mark.parametrize(
    "malformed",
    [
        form(part('name="file"; filename="a"', b"eHg=", "Content-Transfer-Encoding: base64")),
        form(part("name=\"file\"; filename*=nonsense''a", b"x")),
        form(part('name="file"; filename="say "hi".txt"', b"x")),
        form(part('name="a"', b"x", *(f"X-{i}: 1" for i in range(20)))),
        form(part('name="a"', b"x", "X: " + "y" * 10_000)),
        form(b"--BB\r\nContent-Type: text/plain\r\n\r\nx\r\n"),
        form(b"--BB\r\n\xff: 1\r\n\r\n"),
        form(*(part(f'name="{i}"', b"") for i in range(bodies.PARTS + 1))),
        form(part('name="a"', b"x")).replace(b"\r\n", b"\n"),
        form(part('name="a"', b"x"))[:-8],
    ],
)
def test_a_malformed_form_is_refused(malformed: bytes) -> None:
    with pytest.raises(ParseError):
        read(malformed)


def test_fields_that_are_too_large_are_refused() -> None:
    half = part('name="a"', b"x" * (bodies.SMALL // 2 + 1))
    with pytest.raises(BodyTooLarge):
        read(form(half, half))
