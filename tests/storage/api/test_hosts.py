"""The hosts for which requests are answered. The requests pass through everything that gunicorn serves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import WholeClient
from tests.support.cluster import ClusterUnderTest

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("my_host", "my_host"),
        ("my_host:5000", "my_host:5000"),
        ("a:", "a"),
        ("Occ.Example.", "Occ.Example."),
        ("[::1]:5000", "[::1]:5000"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_a_host_is_named_in_addresses_as_the_client_names_it(host: str, origin: str) -> None:
    answer = WholeClient().get("/", headers={"Host": host})
    assert answer.json()["health"] == f"http://{origin}/health"
    assert WholeClient().get("/admin/login/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["", "a b", "[::1", "a/b", "a@b", "a:b", "a:123456", "a,b", "\xff", "<script>", "a\n"])
@pytest.mark.parametrize("path", ["/", "/admin/login/", f"/download/{'0' * 64}"])
def test_a_malformed_host_is_a_problem_document(host: str, path: str) -> None:
    answer = WholeClient().get(path, headers={"Host": host})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_only_allowed_hosts_are_served_on_both_ways(cluster: ClusterUnderTest, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["my_host", ".occ.example"]
    path = f"/download/{cluster.upload(b'x').content.file_hash}"
    for host, status in (("my_host:1", 200), ("a.OCC.example", 200), ("occ.example", 200), ("other", 400), ("my", 400)):
        assert WholeClient().head(path, headers={"Host": host}).status_code == status
        assert WholeClient().get("/", headers={"Host": host}).status_code == status


def test_the_health_checks_of_this_machine_are_answered_whatever_is_allowed(
    cluster: ClusterUnderTest, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["occ.example"]
    for host in ("127.0.0.1:5000", "localhost", "[::1]:5000"):
        assert WholeClient().get("/health", headers={"Host": host}).status_code == 200
