from __future__ import annotations

import dataclasses

import pytest

from storage.conf import Configuration
from storage.exceptions import ConfigurationError
from storage.models import Cluster, Node
from storage.services import probe
from storage.services.provision import add, provision
from tests.support.cluster import ClusterUnderTest, content_of


def test_a_second_start_changes_nothing(cluster: ClusterUnderTest) -> None:
    before = list(Node.objects.values_list("node_id", "uuid", "state")), Cluster.load().sketch_seed
    provision(cluster.configuration)
    assert (list(Node.objects.values_list("node_id", "uuid", "state")), Cluster.load().sketch_seed) == before


def test_a_raised_num_nodes_adds_nodes(cluster: ClusterUnderTest) -> None:
    provision(dataclasses.replace(cluster.configuration, num_nodes=7))
    assert Node.objects.filter(state=Node.State.ACTIVE).count() == 7
    assert (cluster.folder("node_006") / "identity").exists()


def test_num_nodes_need_not_follow_the_nodes(cluster: ClusterUnderTest) -> None:
    """A start makes nodes only if NUM_NODES was raised since the last start. No start removes a node."""

    def start(num_nodes: int) -> int:
        provision(dataclasses.replace(cluster.configuration, num_nodes=num_nodes))
        found = Node.objects.exclude(state=Node.State.RETIRED).count()
        assert Cluster.load().num_nodes == found
        return found

    add()
    assert start(5) == 6, "a node that was added stays"
    assert start(10) == 10, "NUM_NODES=10 for one start"
    assert start(5) == 10, "and the next start without it"
    Node.objects.filter(node_id="node_009").update(state=Node.State.RETIRED)
    assert start(5) == 9, "a node that was retired does not come back"
    assert start(9) == 9
    assert start(9) == 9
    assert start(11) == 11


def test_too_few_nodes_for_the_factor_are_refused_with_a_reason(cluster: ClusterUnderTest) -> None:
    with pytest.raises(ConfigurationError, match="REPLICATION_FACTOR=6, but the cluster has 5 nodes"):
        provision(dataclasses.replace(cluster.configuration, replication_factor=6))
    provision(dataclasses.replace(cluster.configuration, replication_factor=6, num_nodes=6))
    assert Node.objects.count() == 6


def test_a_node_that_was_interrupted_while_it_was_created_is_completed(cluster: ClusterUnderTest) -> None:
    """RACES 20: the node's row is committed before its volume is created, so a later start completes the node."""
    Node.objects.create(node_id="node_005", url="node_005")
    provision(dataclasses.replace(cluster.configuration, num_nodes=6))
    assert Node.objects.get(node_id="node_005").state == Node.State.ACTIVE


def test_a_folder_that_belongs_to_another_cluster_is_not_taken_over(cluster: ClusterUnderTest) -> None:
    stolen = cluster.folder("node_000")
    stolen.rename(cluster.folder("node_005"))
    with pytest.raises(ConfigurationError, match="belongs to another"):
        provision(dataclasses.replace(cluster.configuration, num_nodes=6))


def test_a_changed_tau_means_a_rebuild(cluster: ClusterUnderTest) -> None:
    file = cluster.upload(content_of(3))
    provision(dataclasses.replace(cluster.configuration, tau=3, n_prime=500))
    probe.probe()
    cluster.maintain()
    assert cluster.false_negatives() == []
    assert cluster.download(file) == content_of(3)
    assert (Cluster.load().n_prime, Cluster.load().tau) == (500, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUM_NODES", "0"),
        ("NUM_NODES", "many"),
        ("TAU", "256"),
        ("TAU", "0"),
        ("N_PRIME", "-1"),
        ("PORT", "65536"),
        ("CHUNK_SIZE", "1e6"),
        ("REPLICATION_FACTOR", "0"),
        ("DEBUG", "perhaps"),
    ],
)
def test_a_bad_environment_value_is_one_clear_line(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        Configuration.from_environment({name: value})
    assert "\n" not in str(caught.value)


def test_the_defaults_are_those_of_the_readme() -> None:
    found = Configuration.from_environment({})
    assert (found.port, found.num_nodes, found.n_prime, found.tau) == (5000, 5, 10_000, 10)
    assert (found.replication_factor, found.chunk_size, found.debug) == (3, 262_144, False)
    assert found.max_upload_size == 5 * 1024**3
    assert found.upload_wait == 60
