"""The activity: who did what, when, and who may see it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client as DjangoClient
from django.test.utils import CaptureQueriesContext

from storage.accounts import keys
from storage.models import Activity, Deletion, File, Job, Key, Link, Node, Scope, clock, nobody
from storage.services import activity, audit, cancel, catalogue, drain, share, sweep
from tests.support.api import WholeClient as Client
from tests.support.api import assert_problem, workers
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.keys import bearer, keys_on, owner

__all__ = ["keys_on", "workers"]

DATA = b"some bytes"


def put(name: str, data: bytes = DATA, headers: dict[str, str] | None = None) -> str:
    answer = Client().put(f"/upload/{name}", data, content_type="application/octet-stream", headers=headers)
    assert answer.status_code in (200, 201), answer.content
    file_hash: str = answer.json()["file_hash"]
    return file_hash


def acts(query: str = "", headers: dict[str, str] | None = None) -> list[tuple[str, str, str, str]]:
    found = Client().get(f"/activity{query}", headers=headers).json()["activity"]
    return [(act["actor"], act["action"], act["subject"], act["detail"]) for act in found]


def test_it_says_who_did_what(workers: ClusterUnderTest) -> None:
    file_hash = put("a.txt")
    Client().patch(f"/files/{file_hash}", {"file_name": "b.txt"}, content_type="application/json")
    link = Client().post(f"/files/{file_hash}/links").json()["id"]
    Client().delete(f"/links/{link}")
    Client().post(f"/rebalance/{file_hash}", {"replication_factor": 2})
    assert acts() == [
        ("nobody", "rebalance", "b.txt", "2"),
        ("nobody", "revoke link", "b.txt", link),
        ("nobody", "share", "b.txt", link),
        ("nobody", "rename", "a.txt", "b.txt"),
        ("nobody", "upload", "b.txt", ""),
    ]
    Client().delete(f"/files/{file_hash}")
    after = acts()
    assert after[0] == ("nobody", "delete", "b.txt", "")
    assert after[-1] == ("nobody", "upload", "b.txt", ""), "the upload outlives its file, at its own time"
    assert [act[1] for act in after].count("upload") == 1
    assert acts("?action=delete") == after[:1]
    assert acts("?action=upload") == after[-1:]
    Client().post("/nodes/node_003/audit")
    assert acts()[0] == ("nobody", "maintain", "audit of node_003", "")
    assert_problem(Client().get("/activity?action=all"), 400, "action")
    assert_problem(Client().get("/activity?cursor=x"), 400, "cursor")
    for cursor in ("W10", "WzEsMiwzXQ", "WyIyMDI2IiwxLG51bGxd", "W251bGwsbnVsbCwtMV0", "W251bGwsbnVsbCx0cnVlXQ"):
        assert_problem(Client().get(f"/activity?cursor={cursor}"), 400, "cursor")


def test_a_deletion_that_is_undone_leaves_one_upload(workers: ClusterUnderTest) -> None:
    file_hash = put("a.txt")
    undone = Client().delete(f"/files/{file_hash}").headers["Undo-Location"]
    assert Client().post(undone).status_code == 200
    assert [act[1:3] for act in acts()] == [("undo", "a.txt"), ("delete", "a.txt"), ("upload", "a.txt")]


def test_uploads_write_no_row(workers: ClusterUnderTest) -> None:
    with CaptureQueriesContext(connection) as queries:
        put("a.txt")
    assert not Activity.objects.exists()
    assert not [query for query in queries.captured_queries if "storage_activity" in query["sql"]]


def test_every_act_is_on_one_page(workers: ClusterUnderTest) -> None:
    for number in range(4):
        put(f"{number}.txt", str(number).encode())
    for file in File.objects.all()[:2]:
        Client().patch(f"/files/{file.content.file_hash}", {"file_name": "x"}, content_type="application/json")
    whole = acts()
    assert len(whole) == 6
    for limit in (1, 2, 4, 5, 6):
        seen: list[Any] = []
        address: str | None = f"/activity?limit={limit}"
        while address:
            page = Client().get(address).json()
            assert len(page["activity"]) <= limit
            seen += [(act["actor"], act["action"], act["subject"], act["detail"]) for act in page["activity"]]
            address = (page["next"] or "").removeprefix("http://testserver")
            if len(seen) == 2 and limit == 2:  # Acts stay if their file is deleted between two pages.
                oldest = File.objects.earliest("pk")
                catalogue.delete(oldest)
        assert len(seen) == 6, limit
        assert limit == 2 or seen == acts(), limit


def test_owners_see_their_own_and_admins_all(workers: ClusterUnderTest, keys_on: ClusterUnderTest) -> None:
    ann, ben, admin = bearer("ann"), bearer("ben"), bearer("root", list(Scope))
    file_hash = put("anns.txt", headers=ann)
    put("bens.txt", headers=ben)
    key = Client().post("/keys", {"name": "x"}, headers=ben).json()["id"]
    Client().post("/nodes/node_000/audit", headers=admin)
    Client().delete(f"/files/{file_hash}", headers=ann)
    assert [act[1:3] for act in acts(headers=ann)] == [("delete", "anns.txt"), ("upload", "anns.txt")]
    assert [act[1:3] for act in acts(headers=ben)] == [("create key", key), ("upload", "bens.txt")]
    assert len(acts(headers=admin)) == 5
    means = [act["means"] for act in Client().get("/activity", headers=ann).json()["activity"]]
    assert means == [ann["Authorization"][7:27], ""]


def test_other_doors_are_named(cluster: ClusterUnderTest, capsys: Any) -> None:
    file = cluster.upload(content_of(1), "a.txt")
    client = DjangoClient()
    client.force_login(User.objects.create_superuser("root", "", "secret"))
    form = {"action": "delete_selected", "_selected_action": [str(file.pk)], "post": "yes"}
    assert client.post("/admin/storage/file/", form).status_code == 302
    call_command("drain", "node_004", "--no-wait")
    done = {(act.action, act.actor, act.means, act.owner_id) for act in Activity.objects.all()}
    assert ("delete", "root", "administration", nobody().pk) in done
    assert ("maintain", "", "command line", None) in done


def test_an_act_and_its_row_are_committed_together(workers: ClusterUnderTest, monkeypatch: Any) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the connection is lost")

    file_hash = put("a.txt")
    (file,) = catalogue.find_all(nobody(), file_hash)
    link = share.share(file, 60)
    new = keys.create(owner("ann"), scopes=[Scope.READ])
    job = Job.request(Job.Kind.CENSUS, "cluster")
    monkeypatch.setattr(Activity, "record", fail)
    monkeypatch.setattr(Activity, "record_of", fail)
    for act in (
        lambda: share.share(file, 60),
        lambda: share.revoke(str(link.pk), owner=nobody()),
        lambda: catalogue.rename(file, name="b.txt"),
        lambda: catalogue.delete(file),
        lambda: keys.create(owner("ann"), scopes=[Scope.READ]),
        lambda: keys.rotate(new.key.pk),
        lambda: keys.revoke(new.key.pk),
        lambda: cancel.cancel(job),
        lambda: drain.request("node_003"),
        lambda: audit.request("node_003"),
    ):
        before = [list(model.objects.order_by("pk").values()) for model in (File, Link, Key, Job, Node, Deletion)]
        with pytest.raises(RuntimeError):
            act()
        after = [list(model.objects.order_by("pk").values()) for model in (File, Link, Key, Job, Node, Deletion)]
        assert after == before, act


def test_workers_act_for_nobody(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(2))
    cluster.take_offline("node_001")
    sweep.sweep()
    cluster.maintain()
    assert not Activity.objects.exists()
    cluster.bring_back("node_001")


def test_it_is_kept_for_the_days_that_are_set(workers: ClusterUnderTest) -> None:
    put("old.txt", b"1")
    put("new.txt", b"2")
    old = clock.now() - timedelta(days=91)
    File.objects.filter(name="old.txt").update(created_at=old)
    Activity.objects.create(at=old, action="delete", subject="older")
    Activity.objects.create(at=old + timedelta(days=2), action="delete", subject="kept")
    sweep.sweep()
    found, following = activity.page(None, limit=10)
    assert [act.subject for act in found] == ["new.txt", "kept"]
    assert following is None


def test_given_files_keep_their_times(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(1), "a.txt")
    catalogue.give_all(nobody(), owner("ann"))
    (act,) = activity.page(owner("ann"), limit=10)[0]
    assert (act.action, act.actor, act.subject) == ("upload", "ann", "a.txt")


def test_no_row_names_a_node_for_a_file(workers: ClusterUnderTest) -> None:
    file_hash = put("a.txt", content_of(4))
    Client().post(f"/rebalance/{file_hash}", {"replication_factor": 4})
    Client().post(f"/files/{file_hash}/links")
    Client().post("/nodes/node_000/audit")
    Client().post("/nodes/node_004/drain")
    Client().post("/nodes")
    workers.take_offline("node_001")
    Client().post("/nodes/node_001/retire")
    Client().delete(f"/files/{file_hash}")
    rows = list(Activity.objects.all())
    assert len(rows) >= 7
    for row in rows:
        names_node = "node_" in f"{row.subject} {row.detail}"
        assert not (names_node and row.file_hash), row
        assert not (names_node and row.owner), row
