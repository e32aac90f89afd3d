"""The copies of a file as the volumes report them."""

from __future__ import annotations

import pytest

from storage.services import verify
from tests.support.cluster import CHUNK_SIZE, ClusterUnderTest, content_of


def test_the_nodes_of_a_long_file_are_asked_part_by_part_for_every_chunk(
    cluster: ClusterUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(5)
    file = cluster.upload(content[:CHUNK_SIZE] + content)  # Among the first four chunks, two are the same.
    chunk_hashes = {chunk_hash for chunk_hash, _ in file.content.manifest()}
    assert (file.content.chunk_count, len(chunk_hashes)) == (6, 5)
    cluster.replica_path(cluster.holders(max(chunk_hashes))[0], max(chunk_hashes)).unlink()
    monkeypatch.setattr(verify, "ASKED_CHUNKS", 4)
    found = verify.distribution(file.content)
    assert {h: sorted(node_ids) for h, node_ids in found.items()} == {h: cluster.holders(h) for h in chunk_hashes}
