from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.db.models import Model
from django.test import Client

from storage import tasks
from storage.admin import paging
from storage.models import Cluster, File, Job, Node
from storage.services import audit
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of


@pytest.fixture
def operator(cluster: ClusterUnderTest) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin", "", "secret"))
    return client


def test_the_inventory_shows_name_hash_state_and_health_with_its_time(
    cluster: ClusterUnderTest, operator: Client
) -> None:
    file = cluster.upload(content_of(3), "annual report.pdf")
    page = operator.get("/admin/storage/file/").content.decode()
    assert "annual report.pdf" in page
    assert file.content.file_hash[:16] in page
    assert "3 / 3 / 3" in page
    assert "ready" in page


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
    for query, found in ((str(one.pk), one), ("e_001", other)):
        page = operator.get("/admin/storage/job/", {"q": query})
        assert list(page.context["cl"].result_list) == [found]


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


def test_rebalancing_is_an_action(cluster: ClusterUnderTest, operator: Client) -> None:
    file = cluster.upload(content_of(1))
    operator.post("/admin/storage/file/", {"action": "rebalance_files", "_selected_action": [file.pk]})
    assert Job.objects.filter(kind=Job.Kind.REBALANCE, file_hash=file.content.file_hash).exists()


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


def act(client: Client, model: str, action: str, *rows: Model) -> str:
    """Carry out an admin action on ``rows``; returns the page that comes back."""
    chosen = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    return client.post(f"/admin/storage/{model}/", chosen, follow=True).content.decode()


@pytest.mark.parametrize(
    ("model", "action", "kind"),
    [
        ("node", "audit_nodes", Job.Kind.AUDIT),
        ("node", "drain_nodes", Job.Kind.DRAIN),
        ("cluster", "repair_all", Job.Kind.REPAIR_ALL),
        ("cluster", "rebalance_all", Job.Kind.REBALANCE_ALL),
        ("cluster", "reclaim", Job.Kind.RECLAIM),
        ("cluster", "adopt_and_keep", Job.Kind.ADOPT),
        ("cluster", "adopt_and_condemn", Job.Kind.ADOPT),
    ],
)
def test_operations_are_actions(
    cluster: ClusterUnderTest, operator: Client, model: str, action: str, kind: str
) -> None:
    row = Node.objects.all()[4] if model == "node" else Cluster.load()
    page = act(operator, model, action, row)
    job = Job.objects.get(kind=kind)
    assert f"/admin/storage/job/{job.pk}/change/" in page
    assert Job.objects.count() == 1


def test_who_may_only_look_may_not_operate(cluster: ClusterUnderTest) -> None:
    viewer = User.objects.create_user("viewer", "", "secret", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__in=("view_node", "view_job", "view_cluster")))
    client = Client()
    client.force_login(viewer)
    assert client.get("/admin/storage/node/").status_code == 200
    node, job = Node.objects.all()[4], Job.request(Job.Kind.REPAIR_ALL, "all")
    act(client, "node", "drain_nodes", node)
    act(client, "cluster", "reclaim", Cluster.load())
    act(client, "job", "cancel_jobs", job)
    assert client.post("/admin/storage/node/add/", {"url": "", "zone": ""}).status_code == 403
    assert [(found.kind, found.state) for found in Job.objects.all()] == [(Job.Kind.REPAIR_ALL, Job.State.QUEUED)]
    assert Node.objects.filter(state=Node.State.ACTIVE).count() == 5


def test_what_cannot_be_drained_is_said_on_the_page(cluster: ClusterUnderTest, operator: Client) -> None:
    cluster.upload(content_of(1), factor=5)
    page = act(operator, "node", "drain_nodes", Node.objects.all()[4])
    assert "4 active nodes would be left" in page
    assert Node.objects.filter(state=Node.State.ACTIVE).count() == 5


def test_a_drain_that_is_cancelled_leaves_an_active_node(cluster: ClusterUnderTest, operator: Client) -> None:
    act(operator, "node", "drain_nodes", Node.objects.all()[4])
    job = Job.objects.get(kind=Job.Kind.DRAIN)
    act(operator, "job", "cancel_jobs", job)
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert Node.objects.get(node_id="node_004").state == Node.State.ACTIVE
    assert "the job is cancelled" in act(operator, "job", "cancel_jobs", job)


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
