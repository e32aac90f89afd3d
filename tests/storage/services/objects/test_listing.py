"""Lists of keys, compared with a model that sorts and groups keys in Python."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from storage.exceptions import InvalidKey
from storage.models import Bucket, Object, Properties, nobody
from storage.models.clock import Clock
from storage.services import objects
from tests.support.cluster import ClusterUnderTest
from tests.support.objects import make_bucket


def add(bucket: Bucket, keys: list[str]) -> None:
    Object.objects.bulk_create([Object(bucket=bucket, key=key, size=len(key), etag="e") for key in keys])


def model(keys: list[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """The entries of a list: keys, and common prefixes, in order."""

    def entry(key: str) -> str:
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        return key if cut < 0 else key[: cut + len(delimiter)]

    entries = [entry(key) for key in sorted(keys) if key.startswith(prefix)]
    return [one for one, _ in groupby(entries) if one > after]


def pages(bucket: Bucket, limit: int, after: str = "", **wanted: str) -> list[str]:
    """All entries of a list that is read page by page."""
    found: list[str] = []
    while True:
        page = objects.list_objects(bucket, after=after, limit=limit, **wanted)
        entries = sorted([*(entry.key for entry in page.objects), *page.prefixes])
        assert len(entries) <= limit
        found += entries
        if page.last is None:
            return found
        assert page.last == entries[-1]
        after = page.last


TEXTS = st.text(st.sampled_from("ab/é\U0010ffff\ud7fe\ud7ff\x01"), max_size=5)


class Lists(TestCase):
    @settings(max_examples=150, deadline=None)
    @given(
        st.sets(TEXTS.filter(bool), max_size=25),
        TEXTS,
        st.sampled_from(["", "/", "a", "b/", "\ud7ff", "\U0010ffff", "a\U0010ffff"]),
        TEXTS,
        st.integers(1, 4),
    )
    def test_a_list_is_what_the_model_says(
        self, keys: set[str], prefix: str, delimiter: str, after: str, limit: int
    ) -> None:
        user = nobody()
        bucket = Bucket.objects.create(owner=user, name="b")
        add(bucket, sorted(keys))
        other = Bucket.objects.create(owner=user, name="c")
        add(other, ["a", "b/x", "zz"])
        rolls_up = delimiter.rstrip("\U0010ffff") != ""
        wanted = model(sorted(keys), prefix, delimiter if rolls_up else "", after)
        assert pages(bucket, limit, after, prefix=prefix, delimiter=delimiter) == wanted
        Object.objects.all().delete()
        Bucket.objects.all().delete()


def test_a_common_prefix_is_left_out_after_it_and_after_its_keys(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    add(bucket, ["a", "b/1", "b/2", "b0", "c"])
    for after in ("b/", "b/1", "b/zzz"):
        assert pages(bucket, 10, after, delimiter="/") == ["b0", "c"], after
    assert pages(bucket, 10, "a", delimiter="/") == ["b/", "b0", "c"]
    assert pages(bucket, 10, "b/1") == ["b/2", "b0", "c"]


def test_what_no_key_has_selects_nothing_or_everything(cluster: ClusterUnderTest) -> None:
    bucket = make_bucket()
    add(bucket, ["a", "b"])
    assert objects.list_objects(bucket, prefix="a\0").objects == []
    assert pages(bucket, 10, "a\0b") == ["b"]
    assert pages(bucket, 10, delimiter="\0") == ["a", "b"]
    assert objects.list_objects(bucket, limit=0) == objects.Listing([], [], None)
    for wanted in ({"prefix": "\udc80"}, {"after": "\udc80"}, {"delimiter": "\udc80"}):
        with pytest.raises(InvalidKey):
            objects.list_objects(bucket, **wanted)  # type: ignore[arg-type]


def test_uploads_are_listed_by_key_and_id(cluster: ClusterUnderTest) -> None:
    bucket, other = make_bucket(), make_bucket("other")
    keys = ["a", "a", "b/1", "b/2", "c", "d/1"]
    uploads = [objects.begin_multipart(bucket, key, Properties()) for key in keys]
    objects.begin_multipart(other, "a", Properties())
    expired = objects.begin_multipart(bucket, "a", Properties())
    type(expired).objects.filter(pk=expired.pk).update(expires_at=Clock())
    every = sorted((upload.key, upload.upload_id) for upload in uploads)
    for limit in (1, 2, 3, 100):
        found: list[tuple[str, str]] = []
        after = ("", "")
        while True:
            page = objects.list_multiparts(bucket, after=after, limit=limit)
            found += [(upload.key, upload.upload_id) for upload in page.uploads]
            if page.last is None:
                break
            after = page.last
        assert found == every, limit
    page = objects.list_multiparts(bucket, delimiter="/", limit=3)
    assert ([upload.key for upload in page.uploads], page.prefixes, page.last) == (["a", "a"], ["b/"], ("b/", ""))
    page = objects.list_multiparts(bucket, delimiter="/", after=("b/", ""))
    assert ([upload.key for upload in page.uploads], page.prefixes, page.last) == (["c"], ["d/"], None)
    page = objects.list_multiparts(bucket, prefix="b/", delimiter="/")
    assert ([upload.key for upload in page.uploads], page.prefixes) == (["b/1", "b/2"], [])
