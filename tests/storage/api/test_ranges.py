"""The ranges of a file, compared with a simple oracle: the slices of a sequence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.api.http.ranges import MAX_RANGES, Multipart, content_range, requested

Spec = tuple[int | None, int | None]

numbers = st.integers(0, 40) | st.integers(0, 40) | st.integers(0, 10**30)
specs = (
    st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
    | st.tuples(st.none(), numbers)
    | st.tuples(numbers, st.none())
)
sizes = st.integers(1, 40)


def written(spec: Spec) -> str:
    return "-".join("" if number is None else str(number) for number in spec)


def asked_for(spec: Spec, size: int) -> Sequence[int]:
    """The positions that ``spec`` means, found by slicing."""
    first, last = spec
    positions = range(size)
    if first is None:
        assert last is not None
        return positions[-last:] if last else []
    return positions[first:] if last is None else positions[first : last + 1]


@example([(2, 3), (0, 1)], 9, ",")
@example([(0, 7), (2, 3)], 9, ",")
@given(st.lists(specs, min_size=1, max_size=8), sizes, st.sampled_from([",", ", ", " ,\t", ",,", ", , "]))
def test_a_field_means_what_its_slices_are(asked: list[Spec], size: int, comma: str) -> None:
    found = requested("bytes=" + comma.join(map(written, asked)), size)
    assert found is not None
    assert {p for wanted in found for p in wanted} == {p for spec in asked for p in asked_for(spec, size)}
    assert all(wanted.step == 1 and len(wanted) for wanted in found)
    assert all(before.stop < after.start for before, after in pairwise(found))


@given(st.text() | st.from_regex(r"[Bb]ytes=[-0-9, \t]*", fullmatch=True), st.integers(0, 40))
@example("bytes=0-" + "9" * 8000, 5)
@example("bytes=" + "9" * 3990 + "-", 5)
@example("bytes=-" + "9" * 3990, 5)
@example("bytes=٣-٤", 9)
def test_no_field_is_too_strange(field: str, size: int) -> None:
    found = requested(field, size)
    assert found is None or all(0 <= wanted.start < wanted.stop <= size for wanted in found)


@pytest.mark.parametrize(
    "field",
    [
        *(
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=--1",
            "bytes=+1-2",
        ),
        *("bytes=1 - 2", "bytes=1-2;3-4", "bytes=3-2", "bytes=0-1,3-2", "bytes=0-1,x", "bytes 0-1", "0-1", "=0-1"),
        *("lines=0-1", "bytes =0-1", "bytes=0x1-2", "bytes=1.0-2", "bytes=0-1\n", "bytes=²-", "bytes=+1-2"),
    ],
)
def test_what_is_malformed_or_of_another_unit_is_ignored(field: str) -> None:
    assert requested(field, 10) is None


def test_the_unit_has_no_case() -> None:
    assert requested("BYTES=2-3", 10) == [range(2, 4)]


def test_nothing_of_a_file_and_parts_of_an_empty_one() -> None:
    for field in ("bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99-,-0"):
        assert requested(field, 10) == []
    for field in ("bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0", "bytes=5-"):
        assert requested(field, 0) is None


def test_more_ranges_than_allowed_are_ignored_even_if_they_overlap() -> None:
    assert requested("bytes=" + ",".join(["0-1"] * MAX_RANGES), 10) == [range(2)]
    assert requested("bytes=" + ",".join(["0-1"] * (MAX_RANGES + 1)), 10) is None


def test_content_range_counts_from_zero_and_includes_the_last() -> None:
    assert content_range(range(500), 1234) == "bytes 0-499/1234"
    assert content_range(None, 1234) == "bytes */1234"


@given(st.binary(min_size=1, max_size=60), st.lists(specs, min_size=1, max_size=5), st.integers(1, 9))
def test_a_multipart_body_has_the_slices_and_the_length_it_says(data: bytes, asked: list[Spec], step: int) -> None:
    wanted = requested("bytes=" + ",".join(map(written, asked)), len(data)) or [range(1)]
    multipart = Multipart(wanted, len(data), "text/plain")

    def pieces() -> Iterator[bytes]:
        for run in wanted:
            for start in range(run.start, run.stop, step):
                yield data[start : min(start + step, run.stop)]

    body = b"".join(multipart.body(pieces()))
    assert len(body) == len(multipart)
    assert parts_of(body, multipart.content_type) == [
        (b"text/plain", content_range(run, len(data)).encode(), data[run.start : run.stop]) for run in wanted
    ]


def parts_of(body: bytes, content_type: str) -> list[tuple[bytes, bytes, bytes]]:
    """The Content-Type, Content-Range and bytes of each part (RFC 2046 §5.1.1)."""
    match = re.fullmatch(r"multipart/byteranges; boundary=([0-9a-f]{32})", content_type)
    assert match
    preamble, *parts, end = body.split(b"\r\n--" + match[1].encode())
    assert (preamble, end) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, payload = part.partition(b"\r\n\r\n")
        kind, where = re.fullmatch(rb"\r\nContent-Type: (.*)\r\nContent-Range: (.*)", head).groups()  # type: ignore[union-attr]
        found.append((kind, where, payload))
    return found
