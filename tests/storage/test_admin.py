from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from storage.models import Cluster, File, Job, Node
from tests.cluster import ClusterUnderTest, content_of


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
def test_nodes_jobs_and_the_cluster_are_read_only(cluster: ClusterUnderTest, operator: Client, model: str) -> None:
    assert operator.get(f"/admin/storage/{model}/").status_code == 200
    assert operator.get(f"/admin/storage/{model}/add/").status_code == 403
    node = Node.objects.all()[0]
    assert operator.get(f"/admin/storage/node/{node.pk}/change/").status_code == 200
    assert operator.post(f"/admin/storage/node/{node.pk}/change/", {"state": "retired"}).status_code == 403
    node.refresh_from_db()
    assert node.state == Node.State.ACTIVE


def test_the_seed_of_the_sketches_is_not_shown(cluster: ClusterUnderTest, operator: Client) -> None:
    assert str(Cluster.load().sketch_seed) not in operator.get("/admin/storage/cluster/1/change/").content.decode()
