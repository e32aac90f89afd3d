"""Bodies of workloads: each has the right bytes and the right digest, and no chunk occurs twice."""

from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from benchmarks.service.workloads import KIB, MIB, Workload, blocks, samples, words


@pytest.mark.parametrize("stream", [blocks, words])
def test_no_chunk_is_found_twice_in_or_between_streams(stream: Callable[[int], Iterator[bytes]]) -> None:
    chunk = 1 * KIB  # The smallest CHUNK_SIZE that can be set.
    streams = [b"".join(stream(size)) for size in (3 * MIB, 2 * MIB + 512, 64 * KIB)]
    found = Counter(one[i : i + chunk] for one in streams for i in range(0, len(one) - chunk + 1, chunk))
    assert [len(one) for one in streams] == [3 * MIB, 2 * MIB + 512, 64 * KIB]
    assert max(found.values()) == 1


def test_samples_have_the_digest_of_their_file_and_room_for_it() -> None:
    with samples(Workload(clients=2, files=3, size=MIB + 5)) as made:
        assert len({sample.path.name for sample in made}) == 3
        for sample in made:
            data = sample.path.read_bytes()
            assert len(data) == len(sample.received) == MIB + 5
            assert sha256(data).hexdigest() == sample.digest
    assert not made[0].path.exists()


def test_a_shrunk_workload_still_has_work_for_every_client() -> None:
    assert Workload(8, 64, 4 * MIB).shrunk() == Workload(8, 8, 4 * MIB)
    assert Workload(1, 1, 256 * MIB, raw=True).shrunk() == Workload(1, 1, 16 * MIB, raw=True)
