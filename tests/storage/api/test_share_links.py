"""Share links are made with a key and used without one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.signing import Signer

from storage.exceptions import NoSuchFile
from storage.models import File, Link, Scope, clock
from storage.services import catalogue, sweep
from storage.services import share as service
from tests.support.api import WholeClient as Client
from tests.support.api import assert_problem, workers
from tests.support.cluster import ClusterUnderTest
from tests.support.keys import bearer, keys_on

__all__ = ["keys_on", "workers"]

DATA = b"shared bytes"


@pytest.fixture
def served(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> ClusterUnderTest:
    return workers


@pytest.fixture
def ann(served: ClusterUnderTest) -> dict[str, str]:
    """The header of a key of ann, who has a file."""
    headers = bearer("ann")
    put(headers, "annual%20report.pdf")
    return headers


def put(headers: dict[str, str], name: str, data: bytes = DATA) -> Any:
    return Client().put(f"/upload/{name}", data, content_type="application/octet-stream", headers=headers)


def share(headers: dict[str, str], query: str = "", **fields: object) -> Any:
    url = f"/files/{File.objects.latest('pk').content.file_hash}/links{query}"
    return Client().post(url, fields, content_type="application/json", headers=headers)


def path_of(response: Any) -> str:
    assert response.status_code == 201, response.content
    url: str = response.json()["url"]
    assert url.startswith("http://testserver/share/")
    return url.removeprefix("http://testserver")


def test_whoever_has_the_address_may_download_the_file(ann: dict[str, str]) -> None:
    path = path_of(share(ann))
    assert path.endswith("/annual%20report.pdf")
    response = Client().get(path)
    assert response.getvalue() == DATA
    assert response.headers["Content-Disposition"] == 'attachment; filename="annual report.pdf"'
    assert Client().head(path).headers["Content-Length"] == str(len(DATA))
    part = Client().get(path, headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.getvalue()) == (206, DATA[2:6])
    without_name = path.rpartition("/")[0]
    assert Client().get(without_name).getvalue() == DATA
    assert "other.pdf" in Client().get(f"{without_name}/other.pdf").headers["Content-Disposition"]


def test_a_link_opens_one_file_for_reading_and_nothing_else(ann: dict[str, str]) -> None:
    path = path_of(share(ann))
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        assert Client().generic(method, path).status_code == 405
    assert Client().get(f"{path}?file_name=x").status_code == 400
    token = path.split("/")[2]
    assert Client().get("/files", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_a_link_expires(ann: dict[str, str]) -> None:
    path = path_of(share(ann, expires_in=60))
    assert Client().get(path).getvalue() == DATA
    Link.objects.update(expires_at=Link.objects.get().expires_at - timedelta(seconds=61))
    assert_problem(Client().get(path), 404)
    listed = Client().get(f"/files/{File.objects.get().content.file_hash}/links", headers=ann).json()
    assert listed == {"links": []}


def test_a_link_is_listed_and_revoked(ann: dict[str, str]) -> None:
    made = share(ann).json()
    links = f"/files/{File.objects.get().content.file_hash}/links"
    assert Client().get(links, headers=ann).json() == {"links": [made]}
    assert Client().delete(f"{links}/{made['id']}", headers=ann).status_code == 204
    assert_problem(Client().get(made["url"].removeprefix("http://testserver")), 404)
    for link_id in (made["id"], "nonsense"):
        assert_problem(Client().delete(f"{links}/{link_id}", headers=ann), 404)


def test_an_address_that_was_not_given_opens_nothing(ann: dict[str, str]) -> None:
    path = path_of(share(ann))
    token = path.split("/")[2]
    link_id = Link.objects.get().pk.hex
    foreign = Signer(key="another", salt="storage.links", sep=".").sign(link_id)
    unsigned = Signer(salt="another", sep=".").sign(link_id)
    refusals = {
        assert_problem(Client().get(f"/share/{bad}"), 404)["detail"]
        for bad in (link_id, foreign, unsigned, token[:-1], token + "x", token.upper(), "x", "%00", "%C3%A9", "." * 500)
    }
    assert len(refusals) == 1, "a refusal does not tell why"


def test_a_link_follows_its_file(ann: dict[str, str]) -> None:
    path = path_of(share(ann))
    file_hash = File.objects.get().content.file_hash
    rename: dict[str, Any] = {"data": '{"file_name": "new.pdf"}', "content_type": "application/json", "headers": ann}
    Client().patch(f"/files/{file_hash}", **rename)
    assert "new.pdf" in Client().get(path.rpartition("/")[0]).headers["Content-Disposition"]
    put(ann, "second.pdf")
    second = path_of(share(ann, "?file_name=second.pdf"))
    Client().patch(f"/files/{file_hash}", **rename)
    for merged in (path, second):
        assert "new.pdf" in Client().get(merged.rpartition("/")[0]).headers["Content-Disposition"]
    assert Client().delete(f"/files/{file_hash}", headers=ann).status_code == 204
    assert_problem(Client().get(path), 404)
    assert not Link.objects.exists()


def test_links_belong_to_the_owner_of_the_file(ann: dict[str, str]) -> None:
    made = share(ann).json()
    bob = bearer("bob")
    links = f"/files/{File.objects.get().content.file_hash}/links"
    for response in (
        Client().get(links, headers=bob),
        Client().post(links, headers=bob),
        Client().delete(f"{links}/{made['id']}", headers=bob),
    ):
        assert_problem(response, 404)
    put(bob, "bobs.pdf")
    assert Client().get(links, headers=bob).json() == {"links": []}
    assert_problem(Client().delete(f"{links}/{made['id']}", headers=bob), 404)
    assert_problem(share(bearer("ann", [Scope.READ])), 403)


def test_the_list_of_all_links_is_for_one_owner_page_by_page(ann: dict[str, str]) -> None:
    bob = bearer("bob")
    put(bob, "bobs.txt", b"bob's")
    bobs = share(bob).json()["id"]
    put(ann, "second.txt", b"second")
    made = [share(ann).json()["id"] for _ in range(3)]
    seen: list[str] = []
    address: str | None = "/links?limit=2"
    while address:
        page = Client().get(address, headers=ann).json()
        seen += [link["id"] for link in page["links"]]
        address = page["next"]
    assert seen == made[::-1]
    assert_problem(Client().delete(f"/links/{bobs}", headers=ann), 404)
    assert Link.objects.filter(pk=bobs).exists()
    assert Client().delete(f"/links/{bobs}", headers=bob).status_code == 204
    assert not Link.objects.filter(pk=bobs).exists()


def test_a_link_to_a_file_that_is_deleted_in_between_is_a_404(ann: dict[str, str]) -> None:
    file = File.objects.select_related("content").get()
    catalogue.delete(file)
    with pytest.raises(NoSuchFile):
        service.share(file, 60)
    assert not Link.objects.exists()


def test_links_end_with_the_access_of_the_owner(ann: dict[str, str]) -> None:
    path = path_of(share(ann))
    User.objects.filter(username="ann").update(is_active=False)
    assert_problem(Client().get(path), 404)


@pytest.mark.parametrize("seconds", [0, -1, 10**9, "soon", None])
def test_a_time_that_makes_no_sense_is_a_400(ann: dict[str, str], seconds: object) -> None:
    assert_problem(share(ann, expires_in=seconds), 400, "expires_in")
    assert not Link.objects.exists()


def test_while_keys_are_off_links_work_as_well(workers: ClusterUnderTest) -> None:
    put({}, "file.txt")
    assert Client().get(path_of(share({}))).getvalue() == DATA


def test_the_page_after_a_revocation_speaks_of_the_link(ann: dict[str, str]) -> None:
    address = f"/files/{File.objects.latest('pk').content.file_hash}/links/{share(ann).json()['id']}"
    page = Client().delete(address, headers={**ann, "Accept": "text/html"}).content.decode()
    assert "The link is revoked." in page
    assert "file is deleted" not in page


def test_a_file_has_a_limited_number_of_links(ann: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MOST_LINKS", 3)
    assert [share(ann).status_code for _ in range(3)] == [201] * 3
    refused = share(ann)
    assert_problem(refused, 409)
    assert refused.json()["code"] == "too_many_links"
    Link.objects.filter(pk=Link.objects.earliest("created_at").pk).update(expires_at=clock.now())
    assert share(ann).status_code == 201, "a link that has expired does not count"


def test_links_that_have_expired_are_forgotten(ann: dict[str, str]) -> None:
    for hours in (0, 2):
        share(ann)
        Link.objects.filter(pk=Link.objects.latest("created_at").pk).update(
            expires_at=clock.now() - timedelta(hours=hours)
        )
    share(ann)
    sweep.sweep()
    assert Link.objects.count() == 2


def test_visitors_have_as_many_places_as_the_owner_and_take_none_of_hers(ann: dict[str, str], settings: Any) -> None:
    settings.OCC = replace(settings.OCC, max_transfers_per_owner=2)
    put(ann, "large", b"x" * 3_000_000)
    path = path_of(share(ann))
    visitors = [Client().get(path) for _ in range(2)]
    refused = Client().get(path)
    assert_problem(refused, 429)
    assert refused.json()["code"] == "too_many_own_transfers"
    own = [Client().get(f"/download/{File.objects.latest('pk').content.file_hash}", headers=ann) for _ in range(2)]
    assert [response.status_code for response in own] == [200, 200]
    for response in (*visitors, *own):
        response.close()
    assert Client().get(path).status_code == 200
