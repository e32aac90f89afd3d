"""Requests to the administration that none of its pages makes are refused, and are not logged as defects of the
service.
"""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.test import Client

from storage.models import Node
from tests.storage.api.test_pages import BROWSER
from tests.support.api import WholeClient
from tests.support.cluster import ClusterUnderTest, content_of

ODD = ("id__regex=(", "pk__regex=[", "id__iregex=*", "id__in=x", "id=99999999999999999999999", "id__gt=1e400", "id=%00")
INLINE = re.compile(rb" style=|<style|<script>| on[a-z]+=", re.IGNORECASE)
HEADS = (
    b"Content-Disposition: form-data; name*=x''%E4",
    b"Content-Disposition: form-data; name*=utf-8'",
    b"Content-Disposition: form-data; name=a; filename*=no-such-charset''%E4",
    b"Content-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset*=x",
    b"Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64",
    b"Content-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset=no-such-charset",
    b"\xff\xfe: \xff",
    b"Content-Disposition",
)


@pytest.mark.parametrize("filters", ODD)
def test_an_odd_filter_is_refused(cluster: ClusterUnderTest, operator: Client, filters: str) -> None:
    cluster.upload(content_of(1), "a.txt")
    operator.raise_request_exception = False
    for model in admin.site._registry:
        path = f"/admin/{model._meta.app_label}/{model._meta.model_name}/?{filters}"
        status = operator.get(path, headers=BROWSER).status_code
        assert status in (200, 302, 400), path


def test_no_page_has_code_or_style_that_the_policy_forbids(cluster: ClusterUnderTest, operator: Client) -> None:
    file = cluster.upload(content_of(1), "a.txt")
    pages = [f"/admin/{model._meta.app_label}/{model._meta.model_name}/" for model in admin.site._registry]
    for path in ("/admin/", *pages, f"/admin/storage/file/{file.pk}/change/", "/admin/auth/user/add/"):
        content = operator.get(path, follow=True).content
        assert INLINE.search(content) is None, (path, INLINE.search(content))
    drain = {"action": "drain_nodes", "index": "0", "_selected_action": [Node.objects.latest("pk").pk]}
    plan = operator.post("/admin/storage/node/", drain, follow=True).content
    assert b'class="plan"' in plan
    assert INLINE.search(plan) is None


@pytest.mark.parametrize("head", HEADS)
def test_a_malformed_part_of_a_form_is_refused(cluster: ClusterUnderTest, head: bytes) -> None:
    body = b"--b\r\n" + head + b"\r\n\r\n!!!\r\n--b--\r\n"
    for client in (Client(raise_request_exception=False), WholeClient(raise_request_exception=False)):
        response = client.post("/admin/login/", body, "multipart/form-data; boundary=b")
        assert response.status_code in (200, 400, 403), response.content


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=\xff", "application/x-www-form-urlencoded"],
)
def test_a_malformed_type_of_a_form_is_refused(cluster: ClusterUnderTest, content_type: str) -> None:
    response = Client(raise_request_exception=False).post("/admin/login/", b"a=%FF&b", content_type)
    assert response.status_code in (200, 400, 403)
