"""Operations from the admin pages: the plan is shown, and a job is queued only when the operator has confirmed the
plan.
"""

from __future__ import annotations

from html import unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db.models import Model
from django.test import Client

from storage.admin import operations
from storage.models import Cluster, File, Job, Node
from tests.support.cluster import ClusterUnderTest, content_of

ASKED = [
    ("node", "drain_nodes", Job.Kind.DRAIN, "drain node_004"),
    ("file", "rebalance_files", Job.Kind.REBALANCE, "rebalance FILE"),
    ("cluster", "rebalance_all", Job.Kind.REBALANCE_ALL, "rebalance"),
    ("cluster", "reclaim", Job.Kind.RECLAIM, "reclaim"),
    ("cluster", "adopt_and_keep", Job.Kind.ADOPT, "adopt"),
    ("cluster", "adopt_and_condemn", Job.Kind.ADOPT, "adopt"),
]


def post(client: Client, model: str, action: str, *rows: Model, confirmed: bool = False) -> str:
    """Choose an action for ``rows``, or confirm its plan; returns the page that comes back."""
    form = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    form |= {"confirmed": "yes"} if confirmed else {"index": "0"}
    return unescape(client.post(f"/admin/storage/{model}/", form, follow=True).content.decode())


def row_of(model: str) -> Model:
    """A row of a model: the last node, a file, or the cluster."""
    rows: dict[str, type[Model]] = {"node": Node, "file": File, "cluster": Cluster}
    return rows[model]._default_manager.order_by("pk").reverse()[0]


@pytest.mark.parametrize(("model", "action", "kind", "command"), ASKED)
def test_the_plan_of_the_command_is_shown_and_nothing_starts_before_it_is_confirmed(
    cluster: ClusterUnderTest,
    operator: Client,
    model: str,
    action: str,
    kind: str,
    command: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = cluster.upload(content_of(3))
    jobs = Job.objects.count()
    call_command(*command.replace("FILE", file.content.file_hash).split(), "--dry-run")
    words = capsys.readouterr().out.split()
    page = post(operator, model, action, row_of(model))
    assert not [word for word in words if word.lower() not in page.lower()]
    assert 'name="confirmed" value="yes"' in page
    assert "csrfmiddlewaretoken" in page
    assert f'href="/admin/storage/{model}/" class="button cancel-link"' in page
    assert Job.objects.count() == jobs
    assert Node.objects.filter(state=Node.State.ACTIVE).count() == 5
    page = post(operator, model, action, row_of(model), confirmed=True)
    job = Job.objects.get(kind=kind)
    assert f"/admin/storage/job/{job.pk}/change/" in page
    assert "is queued." in page


@pytest.mark.parametrize(
    ("model", "action", "kind"),
    [("node", "audit_nodes", Job.Kind.AUDIT), ("cluster", "repair_all", Job.Kind.REPAIR_ALL)],
)
def test_what_harms_nothing_starts_at_once(
    cluster: ClusterUnderTest, operator: Client, model: str, action: str, kind: str
) -> None:
    cluster.upload(content_of(1))
    page = post(operator, model, action, row_of(model))
    assert f"/admin/storage/job/{Job.objects.get(kind=kind).pk}/change/" in page


def test_a_confirmation_without_the_token_of_the_session_is_refused(cluster: ClusterUnderTest) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("admin", "", "secret"))
    form = {"action": "reclaim", "_selected_action": "1", "confirmed": "yes"}
    assert client.post("/admin/storage/cluster/", form).status_code == 403
    assert not Job.objects.exists()


def test_a_link_cannot_confirm(cluster: ClusterUnderTest, operator: Client) -> None:
    operator.get("/admin/storage/cluster/", {"action": "reclaim", "_selected_action": "1", "confirmed": "yes"})
    post(operator, "cluster", "reclaim", Cluster.load())
    assert not Job.objects.exists()


def test_what_is_refused_has_no_plan_and_is_not_asked_for(cluster: ClusterUnderTest, operator: Client) -> None:
    cluster.upload(content_of(1), factor=5)
    page = post(operator, "node", "drain_nodes", row_of("node"))
    assert "Refused for node_004: 4 active nodes would be left" in page
    assert "confirmed" not in page
    post(operator, "node", "drain_nodes", row_of("node"), confirmed=True)
    assert Node.objects.filter(state=Node.State.ACTIVE).count() == 5


def test_of_several_nodes_those_that_can_be_retired_are_asked_for(cluster: ClusterUnderTest, operator: Client) -> None:
    cluster.take_offline("node_002")
    gone, there = Node.objects.get(node_id="node_002"), Node.objects.get(node_id="node_003")
    page = post(operator, "node", "retire_nodes", gone, there)
    assert "Retire node_002?" in page
    assert "node_002 would be given up, and with it 0 contents" in page
    assert "Refused for node_003: node_003 is there: drain it" in page
    assert f'name="_selected_action" value="{gone.pk}"' in page
    assert f'name="_selected_action" value="{there.pk}"' not in page
    assert "Repair of the cluster</a> is queued." in post(operator, "node", "retire_nodes", gone, confirmed=True)
    assert Node.objects.get(node_id="node_002").state == Node.State.RETIRED


def test_no_plan_is_made_for_very_many_files(
    cluster: ClusterUnderTest, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MOST_AT_ONCE", 2)
    files = [cluster.upload(content_of(1, str(i)), f"{i}.bin") for i in range(3)]
    assert "more than 2 at once" in post(operator, "file", "rebalance_files", *files)
    assert "Rebalance 2 files?" in post(operator, "file", "rebalance_files", *files[:2])


def test_who_may_only_look_is_offered_no_action_and_can_post_none(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(1))
    viewer = User.objects.create_user("viewer", "", "secret", is_staff=True)
    codenames = [f"view_{model}" for model in ("node", "job", "cluster", "file")]
    viewer.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(viewer)
    job = Job.request(Job.Kind.REPAIR_ALL, "all")
    before = Job.objects.count()
    for model, action, *_ in (*ASKED, ("node", "retire_nodes"), ("node", "audit_nodes"), ("cluster", "repair_all")):
        assert 'name="action"' not in client.get(f"/admin/storage/{model}/").content.decode()
        for confirmed in (False, True):
            assert "confirmed" not in post(client, model, action, row_of(model), confirmed=confirmed)
    post(client, "job", "cancel_jobs", job)
    assert client.post("/admin/storage/node/add/", {"url": "", "zone": ""}).status_code == 403
    assert Job.objects.count() == before
    job.refresh_from_db()
    assert job.state == Job.State.QUEUED
    assert Node.objects.filter(state=Node.State.ACTIVE).count() == 5


def test_a_drain_that_is_cancelled_leaves_an_active_node(cluster: ClusterUnderTest, operator: Client) -> None:
    post(operator, "node", "drain_nodes", row_of("node"), confirmed=True)
    job = Job.objects.get(kind=Job.Kind.DRAIN)
    assert "Drain of node_004</a> is cancelled." in post(operator, "job", "cancel_jobs", job)
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert Node.objects.get(node_id="node_004").state == Node.State.ACTIVE
    assert "Refused for drain of node_004: the job is cancelled" in post(operator, "job", "cancel_jobs", job)
