"""The pages of the nodes show the nodes' states. Before each change of a node, a page shows the plan."""

from __future__ import annotations

import re
from pathlib import Path

from storage.accounts import keys
from storage.console import plots
from storage.models import Job, Key, Node, Scope
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.console import Browser, Page, seen
from tests.support.keys import keys_on, owner

__all__ = ["keys_on"]


def test_the_page_of_nodes_shows_state_room_and_time(workers: ClusterUnderTest, page: Page) -> None:
    workers.take_offline("node_002")
    text = page("/console/nodes")
    assert text.count('<section class="node">') == 5
    assert "Does not answer" in text
    assert re.search(r"since\s+<time[^>]*>just now", text)
    workers.bring_back("node_002")


def test_a_node_is_emptied_after_its_plan_was_seen(workers: ClusterUnderTest) -> None:
    workers.upload(content_of(8))
    on_it = Node.objects.get(node_id="node_004")
    browser = Browser()
    assert "Empty…" in browser.open("/console/nodes/node_004")
    plan = seen(browser.open("/console/nodes/node_004/drain"))
    assert f"Copies on the node {on_it.chunks}" in plan
    assert Node.objects.get(node_id="node_004").state == "active"
    answer = browser.submit("/console/nodes/node_004/drain")
    job = Job.objects.get(kind=Job.Kind.DRAIN)
    assert answer.headers["Location"] == f"/console/jobs/{job.pk}"
    assert "Done" in seen(browser.open(f"/console/jobs/{job.pk}"))
    assert Node.objects.get(node_id="node_004").state == "retired"
    assert "node_004" not in browser.open("/console/nodes")
    browser.open("/console/nodes/node_004", 404)


def test_what_is_not_possible_says_why_and_has_no_button(workers: ClusterUnderTest) -> None:
    workers.upload(content_of(1), factor=5)
    browser = Browser()
    page = browser.open("/console/nodes/node_004/drain")
    assert "4 active nodes would be left" in page
    assert "<button" not in page.partition("<main")[2].partition("</main>")[0]
    browser.open("/console/nodes/node_004/explode", 404)
    browser.open("/console/nodes/node_009/drain", 404)
    browser.open("/console/nodes/add")
    browser.submit("/console/nodes/node_004/drain")
    assert "Nothing was done: 4 active nodes would be left" in seen(browser.open("/console/nodes/node_004"))


def test_a_dead_node_is_offered_to_be_given_up(workers: ClusterUnderTest) -> None:
    workers.upload(content_of(2))
    workers.take_offline("node_001")
    browser = Browser()
    page = browser.open("/console/nodes/node_001")
    assert "Give up…" in page
    assert "Empty…" not in page
    assert "would be lost 0" in seen(browser.open("/console/nodes/node_001/retire"))
    browser.submit("/console/nodes/node_001/retire")
    assert Node.objects.get(node_id="node_001").state == "retired"


def test_the_last_check_is_in_words(workers: ClusterUnderTest) -> None:
    file = workers.upload(content_of(2))
    chunk = next(hash for hash, _ in file.content.manifest())
    node_id = workers.holders(chunk)[0]
    workers.replica_path(node_id, chunk).write_bytes(b"rot")
    browser = Browser()
    browser.open(f"/console/nodes/{node_id}/audit")
    browser.submit(f"/console/nodes/{node_id}/audit")
    assert re.search(r"Last check just now : 1 \w+", seen(browser.open(f"/console/nodes/{node_id}")))


def test_a_node_is_added_after_its_plan_was_seen(workers: ClusterUnderTest) -> None:
    browser = Browser()
    assert 'name="url"' not in browser.open("/console/nodes/add"), "while keys are off, nobody names a folder"
    plan = browser.submit("/console/nodes/add", 200, zone="rack 2").content.decode()
    assert "Add node_005?" in plan
    assert Node.objects.count() == 5
    browser.submit("/console/nodes/add", zone="rack 2", url="", sure="yes")
    assert "node_005 is there" in browser.open("/console/nodes")
    assert Node.objects.get(node_id="node_005").zone == "rack 2"
    browser.open("/console/nodes/add")
    refused = browser.submit("/console/nodes/add", 200, zone="x" * 65).content.decode()
    assert "64 characters" in refused


def test_an_operator_who_is_logged_in_names_a_folder(workers: ClusterUnderTest, keys_on: None, tmp_path: Path) -> None:
    browser = Browser()
    root, ann = owner("root"), owner("ann")
    for user in (root, ann):
        user.set_password("a long password")
        user.is_staff = user.is_superuser = user == root
        user.save()
    for name, status in (("ann", 403), ("root", 200)):
        browser.open("/console/login")
        browser.submit("/console/login", 302, username=name, password="a long password")
        browser.open("/console/nodes/add", status)
        browser.open("/console/nodes/node_000", status)
        browser.open("/console/nodes/node_000/drain", status)
        if name == "ann":
            browser.submit("/console/nodes/node_000/drain", 403)
            browser.submit("/console/logout", 302)
    browser.submit("/console/nodes/add", zone="", url=f"file://{tmp_path}/disk", sure="yes")
    assert (tmp_path / "disk" / "chunks").is_dir()


def test_staff_who_may_only_look_operate_nothing(workers: ClusterUnderTest, keys_on: None) -> None:
    viewer = owner("viewer")
    viewer.set_password("a long password")
    viewer.is_staff = True
    viewer.save()
    job = Job.request(Job.Kind.AUDIT, "node_000")
    anns = keys.create(owner("ann"), scopes=[Scope.READ]).key
    browser = Browser()
    browser.open("/console/login")
    browser.submit("/console/login", 302, username="viewer", password="a long password")
    assert "may not do this" in browser.open("/console/nodes/node_000/drain")
    browser.open("/console/nodes/node_000")
    browser.open("/console/nodes/add")
    browser.submit("/console/nodes/node_000/drain")
    browser.submit("/console/nodes/add", 200, zone="", url="", sure="yes")
    browser.submit(f"/console/jobs/{job.pk}/cancel")
    browser.submit("/console/keys", 200, name="x", scopes=["admin", "write"])
    assert (Node.objects.filter(state="active").count(), Job.objects.get().state) == (5, "queued")
    for act in ("revoke", "rotate"):
        browser.open(f"/console/keys/{anns.pk}/{act}")
        browser.submit(f"/console/keys/{anns.pk}/{act}")
    kept = Key.objects.get()
    assert (kept.revoked_at, bytes(kept.digest)) == (None, anns.digest)


def test_a_disk_is_shown_in_parts_of_a_hundred() -> None:
    bar = plots.fill(stored=10, disk=100, free=50)
    assert bar is not None
    assert (bar.stored, bar.others, bar.free) == (10, 40, 50)
    assert plots.fill(10, None, None) is None
    crowded = plots.fill(stored=500, disk=100, free=30)
    assert crowded is not None
    assert crowded.stored + crowded.others + crowded.free == 100
