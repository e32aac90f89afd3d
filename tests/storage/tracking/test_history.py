from __future__ import annotations

from datetime import timedelta

from sketches.estimators.epochs import Epoch
from storage.cluster.topology import Topology
from storage.models import Cluster, Content, Node
from storage.models.clock import Clock
from storage.services import provision
from storage.tracking import history
from storage.tracking.history import Span
from storage.tracking.surveying.overlaps import epochs_of
from tests.support.cluster import ClusterUnderTest, content_of


def spans() -> list[Span]:
    history._recent.forget()
    return history.spans(Topology.load())


def test_nodes_that_were_there_before_the_first_file_have_one_span(cluster: ClusterUnderTest) -> None:
    assert [len(span.node_ids) for span in spans()] == [5]
    cluster.upload(content_of(4))
    (span,) = spans()
    assert (len(span.node_ids), span.chunks) == (5, {3: 4})


def test_a_node_that_joins_begins_a_span_until_the_cluster_was_rebalanced(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(4, "before"))
    provision.add()
    cluster.upload(content_of(2, "after"), factor=2)
    provision.add()
    cluster.upload(content_of(1, "last"))
    assert [(len(span.node_ids), span.chunks) for span in spans()] == [(5, {3: 4}), (6, {2: 2}), (7, {3: 1})]
    Cluster.objects.update(rebalanced_at=Clock())
    assert [(len(span.node_ids), span.chunks) for span in spans()] == [(7, {3: 5, 2: 2})]


def test_a_span_without_files_is_empty(cluster: ClusterUnderTest) -> None:
    cluster.upload(content_of(4))
    provision.add()
    Node.objects.filter(node_id="node_005").update(
        created_at=Content.objects.get().created_at + timedelta(milliseconds=1)
    )
    assert [(len(span.node_ids), span.chunks) for span in spans()] == [(5, {3: 4}), (6, {})]


def test_chunks_are_divided_as_they_were_stored() -> None:
    five, six = frozenset("abcde"), frozenset("abcdef")
    history = [Span(five, {3: 300, 2: 50}), Span(six, {3: 100})]
    # No file has factor 4, so chunks with four copies are divided in proportion to all chunks of each span. More chunks
    # have two copies than were stored with factor 2, because some chunks of factor 3 have lost a copy.
    found = epochs_of({2: 60, 3: 400, 4: 9}, history, ["a", "b", "c", "d", "e", "f"])
    assert found == [
        Epoch((0, 1, 2, 3, 4), {2: 60, 3: 300, 4: 7}),
        Epoch((0, 1, 2, 3, 4, 5), {2: 0, 3: 100, 4: 2}),
    ]


def test_what_had_no_room_then_was_placed_later() -> None:
    found = epochs_of({3: 10}, [Span(frozenset("ab"), {3: 4}), Span(frozenset("abc"), {3: 6})], ["a", "b", "c"])
    assert found == [Epoch((0, 1), {}), Epoch((0, 1, 2), {3: 10})]


def test_an_empty_cluster_has_one_epoch() -> None:
    assert epochs_of({}, [Span(frozenset("ab"), {})], ["a", "b"]) == [Epoch((0, 1), {})]
    assert epochs_of({1: 5}, [Span(frozenset("ab"), {})], ["a", "b"]) == [Epoch((0, 1), {1: 5})]
