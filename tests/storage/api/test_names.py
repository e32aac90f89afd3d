from __future__ import annotations

from urllib.parse import quote_from_bytes, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.api.names import decoded, in_query, valid_name
from storage.exceptions import InvalidRequest
from storage.models.names import MAX_LENGTH

SEGMENTS = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=60)
NAMES = st.lists(SEGMENTS.filter(lambda segment: segment not in (".", "..")), min_size=1, max_size=4).map("/".join)
ANY = st.text(st.characters())


@given(NAMES)
@example("a/b")
@example(".../. /..a")
@example("research&notes.txt")
@example('say "hi".txt')
@example("back\\slash.txt")
@example("\U0001f468\u200d\U0001f469\u200d\U0001f467 \u200c\xa0\u3000\u202f\ue000\ufeff\uffff")
@example("\U0001f600" * MAX_LENGTH)
@example(" ")
@example("...")
def test_a_name_is_kept_as_it_is(name: str) -> None:
    assert valid_name(name) == name
    assert len(name.encode()) <= 1020


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "/",
        "/a",
        "a/",
        "a//b",
        "./a",
        "a/..",
        "a/./b",
        "\0",
        "a/\n",
        "\x7f",
        "\x85",
        "\ud800",
        "x" * 256,
        "d/" * 127 + "xx",
    ],
)
def test_what_cannot_be_a_name_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        valid_name(text, "file")
    ((field, (reason,)),) = refused.value.errors.items()
    assert field == "file"
    assert reason.isprintable()


@given(ANY)
def test_a_text_is_kept_or_refused_and_never_changed(text: str) -> None:
    try:
        assert valid_name(text) == text
    except InvalidRequest as refused:
        assert refused.errors.keys() == {"file_name"}
    else:
        assert not {"", ".", ".."} & set(text.split("/"))
        assert "\0" not in text
        assert 1 <= len(text) <= MAX_LENGTH
        text.encode()


@given(st.binary(min_size=1))
def test_a_query_says_the_name_that_its_bytes_are(data: bytes) -> None:
    query = f"a=1&file_name=other&file_name={quote_from_bytes(data)}"
    assert in_query({"QUERY_STRING": query}) == decoded(data)
    assert decoded(data).encode(errors="surrogateescape") == data


def test_a_query_may_say_no_name() -> None:
    assert in_query({}) == in_query({"QUERY_STRING": "file_name=&a=b"}) == ""
    assert in_query({"QUERY_STRING": urlencode({"file_name": "a b&c"})}) == "a b&c"
