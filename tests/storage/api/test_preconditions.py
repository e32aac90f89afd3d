"""Conditions in the order of RFC 9110 §13.2.2. The tests of the endpoints show that conditions are checked there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from storage.api.http.preconditions import PreconditionFailed, check, http_date, range_applies

ETAG = '"abc"'
MODIFIED = datetime(1994, 11, 6, 8, 49, 37, 999_999, tzinfo=UTC)
THEN = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
NOT_DATES = ("", "garbage", "Sun, 06 Nov 1994", "Sun, 99 Nov 1994 08:49:37 GMT", "0", f"{THEN}, {THEN}", ETAG)


def outcome(method: str = "GET", **fields: str) -> int:
    environ = {"REQUEST_METHOD": method, **{f"HTTP_{name.upper()}": value for name, value in fields.items()}}
    try:
        return 304 if check(environ, ETAG, MODIFIED) else 200
    except PreconditionFailed as error:
        return error.status_code


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_has_this_version_is_told_so(method: str) -> None:
    assert outcome(method) == 200
    for date, status in ((BEFORE, 200), (THEN, 304), (LATER, 304), *((text, 200) for text in NOT_DATES)):
        assert outcome(method, if_modified_since=date) == status, date
    for tag, status in ((ETAG, 304), (f"W/{ETAG}", 304), ("*", 304), ('"other"', 200), ("", 200), ("abc", 200)):
        assert outcome(method, if_none_match=tag) == status, tag


def test_a_date_is_read_in_the_three_forms_of_http() -> None:
    for date in (THEN, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
        assert outcome(if_modified_since=date) == 304, date
        assert outcome("DELETE", if_unmodified_since=date) == 200, date


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PATCH"])
def test_a_client_that_wants_another_version_gets_a_412(method: str) -> None:
    for date, status in ((BEFORE, 412), (THEN, 200), (LATER, 200), *((text, 200) for text in NOT_DATES)):
        assert outcome(method, if_unmodified_since=date) == status, date
    for tag, status in ((ETAG, 200), ("*", 200), (f'"x", {ETAG}', 200), (f"W/{ETAG}", 412), ('"x"', 412), ("", 412)):
        assert outcome(method, if_match=tag) == status, tag


def test_an_entity_tag_counts_before_a_date() -> None:
    assert outcome(if_match=ETAG, if_unmodified_since=BEFORE) == 200
    assert outcome(if_none_match='"other"', if_modified_since=THEN) == 200
    assert outcome(if_none_match="garbage", if_modified_since=THEN) == 200


def test_what_a_client_wants_counts_before_what_it_has() -> None:
    assert outcome(if_match='"other"', if_none_match=ETAG) == 412
    assert outcome(if_unmodified_since=BEFORE, if_modified_since=THEN) == 412
    assert outcome(if_match=ETAG, if_none_match=ETAG) == 304
    assert outcome(if_unmodified_since=THEN, if_modified_since=THEN) == 304


def test_a_change_has_no_304() -> None:
    assert outcome("PATCH", if_none_match=ETAG) == 412
    assert outcome("DELETE", if_none_match="*") == 412
    assert outcome("DELETE", if_none_match='"other"') == 200
    assert outcome("DELETE", if_modified_since=LATER) == 200


def test_a_412_names_the_field_that_does_not_hold() -> None:
    with pytest.raises(PreconditionFailed, match="If-Unmodified-Since"):
        check({"REQUEST_METHOD": "DELETE", "HTTP_IF_UNMODIFIED_SINCE": BEFORE}, ETAG, MODIFIED)


def test_a_range_goes_with_this_version_alone() -> None:
    assert range_applies({}, ETAG, MODIFIED)
    for field in (ETAG, THEN):
        assert range_applies({"HTTP_IF_RANGE": field}, ETAG, MODIFIED), field
    for field in (f"W/{ETAG}", '"other"', BEFORE, LATER, *NOT_DATES[:-1]):
        assert not range_applies({"HTTP_IF_RANGE": field}, ETAG, MODIFIED), field


def test_a_date_is_in_gmt_whatever_the_clock_of_the_time() -> None:
    assert http_date(MODIFIED) == THEN
    assert http_date(MODIFIED.astimezone(timezone(timedelta(hours=5, minutes=30)))) == THEN
