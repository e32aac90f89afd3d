from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils.html import escape, strip_tags

from storage import tasks
from storage.admin import columns, paging
from storage.models import Cluster, File, Job, Node
from storage.services import audit, catalogue
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of


def test_the_inventory_shows_name_hash_state_and_health_with_its_time(
    cluster: ClusterUnderTest, operator: Client
) -> None:
    file = cluster.upload(content_of(3), "annual report.pdf")
    page = operator.get("/admin/storage/file/").content.decode()
    assert "annual report.pdf" in page
    assert file.content.file_hash[:16] in page
    assert "ready" in page
    page = operator.get(f"/admin/storage/file/{file.pk}/change/").content.decode()
    assert "3 / 3 / 3" in page
    file.content.refresh_from_db()
    assert f"{file.content.health_at:%Y-%m-%d %H:%M}" in page


def test_files_are_found_by_name_and_by_the_beginning_of_their_hash(
    cluster: ClusterUnderTest, operator: Client
) -> None:
    one, other = cluster.upload(content_of(1, "1"), "report.pdf"), cluster.upload(content_of(1, "2"), "photo.jpg")
    for query, found in (("report", one), (other.content.file_hash[:10], other), (other.content.file_hash, other)):
        page = operator.get("/admin/storage/file/", {"q": query}).content.decode()
        assert found.name in page
        assert ({one.name, other.name} - {found.name}).pop() not in page


def test_what_looks_like_a_hash_may_be_a_name_too(cluster: ClusterUnderTest, operator: Client) -> None:
    hashed = cluster.upload(content_of(1, "1"), "hashed")
    cluster.upload(content_of(1, "2"), f"copy of {hashed.content.file_hash[:8]}")
    cluster.upload(content_of(1, "3"), "neither")
    page = operator.get("/admin/storage/file/", {"q": hashed.content.file_hash[:8]}).content.decode()
    assert "hashed" in page
    assert "copy of" in page
    assert "neither" not in page


def test_the_inventory_knows_its_total_and_counts_what_was_filtered_only_so_far(
    cluster: ClusterUnderTest, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "COUNTED", 2)
    for i in range(3):
        cluster.upload(content_of(1, str(i)), f"{i}.bin")
    for query, shown in (({}, 3), ({"q": "bin"}, 2), ({"q": "1.bin"}, 1)):
        assert operator.get("/admin/storage/file/", query).context["cl"].result_count == shown


def test_files_are_filtered_by_their_factor(cluster: ClusterUnderTest, operator: Client) -> None:
    for factor in (2, 3):
        cluster.upload(content_of(1, str(factor)), f"with {factor} copies", factor)
    for query, shown in (("2", ["with 2 copies"]), ("5", []), ("many", ["with 3 copies", "with 2 copies"])):
        page = operator.get("/admin/storage/file/", {"replication_factor": query})
        assert [file.name for file in page.context["cl"].result_list] == shown


def test_jobs_are_found_by_id_and_by_subject(cluster: ClusterUnderTest, operator: Client) -> None:
    one, other = (Job.request(Job.Kind.AUDIT, node_id) for node_id in ("node_000", "node_001"))
    upload = cluster.accept(content_of(1)).job
    for query, found in ((str(one.pk), one), (str(one.pk)[:8], one), ("e_001", other), (str(upload.pk)[:8], upload)):
        page = operator.get("/admin/storage/job/", {"q": query})
        assert list(page.context["cl"].result_list) == [found]


def test_the_pages_are_those_of_occ_storage(cluster: ClusterUnderTest, operator: Client) -> None:
    cluster.upload(content_of(1))
    for path, title in (
        ("", "Files, objects, nodes, jobs, keys and quotas"),
        ("storage/file/", "Files"),
        ("storage/cluster/", "Cluster"),
        ("storage/job/", "Maintenance"),
    ):
        page = operator.get(f"/admin/{path}").content.decode()
        assert f"<title>{title}" in page
        assert "| OCC Storage</title>" in page
        assert "Clusters" not in page
        assert "Django administration" not in page


def test_a_long_name_is_cut_in_its_middle_and_its_title_is_whole(cluster: ClusterUnderTest, operator: Client) -> None:
    name = 'annual report of "the" whole department, which has many words in its name, of the year 2026.pdf'
    cluster.upload(content_of(1), name)
    for page in ("/admin/storage/file/", "/admin/storage/job/?work=uploads"):
        shown = operator.get(page).content.decode()
        assert f'title="{escape(name)}"' in shown
        assert "…r 2026.pdf</span>" in shown
        assert "which has many words" not in strip_tags(shown)


@pytest.mark.parametrize(
    ("text", "most", "cut"),
    [
        ("a" * 32, 32, "a" * 32),
        ("a" * 20 + "b" * 13, 32, "a" * 20 + "b…" + "b" * 10),
        ("0123456789abcdef", 13, "01234567…cdef"),
    ],
)
def test_what_is_cut_has_no_more_than_so_many_characters(text: str, most: int, cut: str) -> None:
    shown = columns.elided(text, most)
    assert strip_tags(shown) == cut
    assert len(cut) <= most


def test_uploads_and_maintenance_are_apart(cluster: ClusterUnderTest, operator: Client) -> None:
    file = cluster.upload(content_of(1), "photo.jpg")
    ingest = Job.objects.get(kind=Job.Kind.INGEST)
    other = Job.request(Job.Kind.DRAIN, "node_003")
    listed = {
        work: operator.get("/admin/storage/job/", {"work": work} if work else {})
        for work in ("", "maintenance", "uploads")
    }
    assert {work: list(page.context["cl"].result_list) for work, page in listed.items()} == {
        "": [other],
        "maintenance": [other],
        "uploads": [ingest],
    }
    uploads, maintenance = (listed[work].content.decode() for work in ("uploads", ""))
    assert "photo.jpg" in uploads
    assert "cancel_jobs" in uploads
    assert "drain of node_003" in maintenance
    assert f">{str(other.pk)[:8]}<" in maintenance
    for job in (ingest, other):
        assert operator.get(f"/admin/storage/job/{job.pk}/change/").status_code == 200
    catalogue.delete(file)
    assert ingest.file_hash is not None
    assert ingest.file_hash[:8] in operator.get("/admin/storage/job/?work=uploads").content.decode()


def test_jobs_of_one_kind_are_listed(cluster: ClusterUnderTest, operator: Client) -> None:
    audit_job = Job.request(Job.Kind.AUDIT, "node_000")
    Job.request(Job.Kind.DRAIN, "node_000")
    page = operator.get("/admin/storage/job/", {"kind": "audit"})
    assert list(page.context["cl"].result_list) == [audit_job]


def test_the_lists_of_jobs_ask_as_much_for_many_as_for_one(
    cluster: ClusterUnderTest, operator: Client, django_assert_max_num_queries: object
) -> None:
    for i in range(8):
        cluster.upload(content_of(1, str(i)), f"{i}.bin")
    with django_assert_max_num_queries(8):  # type: ignore[operator]
        operator.get("/admin/storage/job/?work=uploads")


def test_the_inventory_asks_as_much_for_many_files_as_for_one(
    cluster: ClusterUnderTest, operator: Client, django_assert_max_num_queries: object
) -> None:
    for i in range(8):
        cluster.upload(content_of(1, str(i)), f"{i}.bin")
    with django_assert_max_num_queries(12):  # type: ignore[operator]
        operator.get("/admin/storage/file/")


def test_a_name_may_be_edited_and_nothing_else(cluster: ClusterUnderTest, operator: Client) -> None:
    file = cluster.upload(content_of(1), "old")
    form = {"name": "new", "replication_factor": "1", "state": "ingesting", "size": "7"}
    assert operator.post(f"/admin/storage/file/{file.pk}/change/", form).status_code == 302
    file.refresh_from_db()
    assert (file.name, file.replication_factor, file.content.state) == ("new", 3, "ready")


def test_deleting_in_the_admin_is_deleting_a_file(cluster: ClusterUnderTest, operator: Client) -> None:
    files = [cluster.upload(content_of(1, str(i)), str(i)) for i in range(3)]
    operator.post(f"/admin/storage/file/{files[0].pk}/delete/", {"post": "yes"})
    assert File.objects.count() == 2
    chosen = {"action": "delete_selected", "_selected_action": [files[1].pk, files[2].pk], "post": "yes"}
    operator.post("/admin/storage/file/", chosen)
    assert not File.objects.exists()
    assert not Job.objects.exclude(state__in=Job.TERMINAL).exists()


@pytest.mark.parametrize("model", ["node", "job", "cluster"])
def test_nodes_jobs_and_the_cluster_are_not_edited_by_hand(
    cluster: ClusterUnderTest, operator: Client, model: str
) -> None:
    row = {"node": Node.objects.all()[0], "job": Job.request(Job.Kind.AUDIT, "x"), "cluster": Cluster.load()}[model]
    page = f"/admin/storage/{model}/{row.pk}"
    assert operator.get(f"/admin/storage/{model}/").status_code == 200
    assert operator.get(f"{page}/change/").status_code == 200
    assert operator.post(f"{page}/change/", {"state": "retired", "num_nodes": 1}).status_code == 403
    assert operator.post(f"{page}/delete/", {"post": "yes"}).status_code == 403
    if model != "node":
        assert operator.get(f"/admin/storage/{model}/add/").status_code == 403
    assert {node.state for node in Node.objects.all()} == {Node.State.ACTIVE}


def test_a_node_is_added_by_a_form(cluster: ClusterUnderTest, operator: Client) -> None:
    where = cluster.configuration.storage_dir / "another"
    page = operator.post("/admin/storage/node/add/", {"url": where.as_uri(), "zone": "b"}, follow=True)
    assert "node_005 was added" in page.content.decode()
    node = Node.objects.get(node_id="node_005")
    assert (node.state, node.zone, node.online) == (Node.State.ACTIVE, "b", True)
    assert (where / "identity").exists()
    operator.post("/admin/storage/node/add/", {"url": "", "zone": ""})
    assert (cluster.folder("node_006") / "identity").exists()


def test_the_form_says_why_no_node_can_be_made(cluster: ClusterUnderTest, operator: Client) -> None:
    taken = cluster.folder("node_000").as_uri()
    for url, complaint in ((taken, "belongs to another node"), ("s3://bucket", "no volume backend")):
        page = operator.post("/admin/storage/node/add/", {"url": url, "zone": ""})
        assert page.status_code == 200
        assert complaint in page.content.decode()
    assert Node.objects.count() == 5


def test_the_list_of_nodes_shows_what_their_last_audit_found(cluster: ClusterUnderTest, operator: Client) -> None:
    chunk_hash = cluster.upload(content_of(1)).content.manifest()[0][0]
    bad, good = cluster.holders(chunk_hash)[:2]
    cluster.replica_path(bad, chunk_hash).write_bytes(bytes(CHUNK_SIZE // 2))
    for node_id in (bad, good):
        audit.request(node_id)
    tasks.maintain()
    page = operator.get("/admin/storage/node/").content.decode()
    assert page.count("1 corrupt") == 1
    assert page.count("all well") == 1


def test_the_page_of_a_job_shows_its_result(cluster: ClusterUnderTest, operator: Client) -> None:
    audit.request("node_000")
    tasks.maintain()
    job = Job.objects.get(kind=Job.Kind.AUDIT)
    page = operator.get(f"/admin/storage/job/{job.pk}/change/").content.decode()
    assert "&quot;corrupt&quot;: 0,\n" in page


def test_the_seed_of_the_sketches_is_not_shown(cluster: ClusterUnderTest, operator: Client) -> None:
    assert str(Cluster.load().sketch_seed) not in operator.get("/admin/storage/cluster/1/change/").content.decode()


def test_over_tls_a_browser_is_told_to_keep_cookies_to_tls(cluster: ClusterUnderTest) -> None:
    User.objects.create_superuser("admin", "", "secret")
    form = {"username": "admin", "password": "secret"}
    for secure in (True, False):
        client = Client()
        client.get("/admin/login/", secure=secure)
        client.post("/admin/login/", form, secure=secure)
        cookies = {name: bool(cookie["secure"]) for name, cookie in client.cookies.items()}
        assert cookies == {"csrftoken": secure, "sessionid": secure}


@pytest.mark.parametrize("name", ["a//b", "..", "n\nl", "\x85"])
def test_a_file_gets_no_name_that_none_can_have(cluster: ClusterUnderTest, operator: Client, name: str) -> None:
    file = cluster.upload(b"x", "old.txt")
    page = operator.post(f"/admin/storage/file/{file.pk}/change/", {"name": name})
    assert "errorlist" in page.content.decode()
    file.refresh_from_db()
    assert file.name == "old.txt"
