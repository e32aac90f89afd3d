"""The registers that the benchmark draws have the same distribution as registers from hashing every chunk."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.sketches.draws import (
    Placed,
    Throws,
    node_sets,
    occupancies,
    occupied_registers,
    place,
    registers,
    throws,
)
from sketches.estimators.occupancy import Occupancy, count_occupancy
from sketches.simulate.placement import Placement, sketch, uniform, weighted, zoned

RUNS = 12_000
PLACED = Placed(4, np.array([1, 2, 3, 6, 8, 7, 13, 14], np.uint32), np.array([1, 2, 2, 1, 0, 2, 1, 3]))


def held(placed: Placed) -> NDArray[np.bool_]:
    return np.asarray(np.repeat(placed.sets, placed.chunks) >> np.arange(placed.nodes)[:, None] & 1, np.bool_)


def assert_same(one: Sequence[Hashable], other: Sequence[Hashable]) -> None:
    """Assert that two samples are of one distribution: chi-squared, with rare outcomes pooled, is within 4.5 sd of its
    mean.
    """
    a, b = Counter(one), Counter(other)
    often = [outcome for outcome in a | b if a[outcome] + b[outcome] >= 30]
    pairs = [(a[outcome], b[outcome]) for outcome in often]
    pairs.append((len(one) - sum(x for x, _ in pairs), len(other) - sum(y for _, y in pairs)))
    assert len(pairs) > 3
    squared = sum((x - y) ** 2 / (x + y) for x, y in pairs if x + y)
    assert abs(squared - (len(pairs) - 1)) < 4.5 * np.sqrt(2 * (len(pairs) - 1))


@pytest.mark.parametrize(
    "placement", [uniform(4), weighted(5), zoned(5), zoned(7), Placement(np.array([1.0, 2, 3, 4, 5]), np.arange(5) % 3)]
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_node_sets_are_as_likely_as_placement_has_them(placement: Placement, size: int) -> None:
    held = placement.hold(np.full(200_000, size), np.random.default_rng(size))
    seen = Counter(((1 << np.arange(placement.nodes)) @ held).tolist())
    members, probabilities = node_sets(placement, size)
    expected = dict(zip((1 << members).sum(axis=1).tolist(), 200_000 * probabilities, strict=True))
    assert set(seen) <= set(expected) and sum(probabilities) == pytest.approx(1)
    squared = sum((seen[nodes] - mean) ** 2 / mean for nodes, mean in expected.items())
    assert squared - len(expected) < 4.5 * np.sqrt(2 * len(expected))


@pytest.mark.parametrize("chunks", [50, 1000, 1471])
def test_throws_that_are_put_together_occupy_as_many(chunks: int) -> None:
    rng = np.random.default_rng(chunks)
    ((_, exact),) = occupied_registers(600, [chunks])
    drawn = throws(600, [1500]).draw(chunks, 40_000, rng)
    assert_same(drawn.tolist(), exact.draw(40_000, rng).tolist())
    thrown = [len(np.unique(rng.integers(0, 600, chunks))) for _ in range(10_000)]
    assert_same(drawn[:10_000].tolist(), thrown)


def assert_as_hashed(
    n_prime: int,
    draw: Callable[[Throws, np.random.Generator], Iterable[Hashable]],
    outcome: Callable[[NDArray[np.uint8]], Hashable],
) -> None:
    rng = np.random.default_rng(n_prime)
    drawn = list(draw(throws(n_prime, [20]), rng))
    assert_same(drawn, [outcome(sketch(held(PLACED), n_prime, rng)) for _ in range(RUNS)])


def test_occupancies_are_as_hashed() -> None:
    def outcome(seen: Occupancy) -> Hashable:
        levels = seen.level_counts
        return (*levels[:3].tolist(), int(levels[3:].sum()), *np.concatenate(seen.patterns).tolist())

    assert_as_hashed(
        9,
        lambda hit, rng: map(outcome, occupancies(PLACED, 2, hit, RUNS, rng)),
        lambda hashed: outcome(count_occupancy(hashed, 2)),
    )


@pytest.mark.parametrize("nodes", [[0, 1, 2, 3], [1, 3], [0, 2, 3]])
def test_registers_are_as_hashed(nodes: list[int]) -> None:
    def outcome(seen: NDArray[np.uint8]) -> Hashable:
        return tuple(np.bincount((seen > 0).T @ (1 << np.arange(len(nodes))), minlength=16).tolist())

    assert_as_hashed(
        8,
        lambda hit, rng: map(outcome, registers(PLACED, np.array(nodes), hit, RUNS, rng)),
        lambda hashed: outcome(hashed[nodes]),
    )


def test_chunks_are_placed_with_their_replicas() -> None:
    placed = place(weighted(5), {1: 30, 2: 50, 3: 1000}, np.random.default_rng(1))
    by_size = np.bincount(np.bitwise_count(placed.sets), placed.chunks)
    assert by_size.tolist() == [0, 30, 50, 1000]
    assert placed.chunks_per_node.tolist() == held(placed).sum(axis=1).tolist()
    assert (np.diff(placed.chunks_per_node) > 0).all()
