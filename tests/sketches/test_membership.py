import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketches.estimators.membership import candidates, false_positive_rate, holders
from sketches.simulate.placement import count

TAU = 255


def posterior(value: int, chunks: float, n_prime: int, *, prior: float, loss: float = 0.0, tau: int = TAU) -> float:
    values = np.array([[value]], np.uint8)
    return float(candidates(values, [chunks], n_prime, tau, prior, loss).probabilities[0, 0])


@pytest.mark.parametrize("load", [0.05, 0.25, 1.0, 3.0])
def test_the_false_positive_rate_is_as_predicted(load: float) -> None:
    rng = np.random.default_rng(1)
    n_prime = 10_000
    registers = np.bincount(rng.integers(0, n_prime, int(load * n_prime)), minlength=n_prime)
    absent = rng.integers(0, n_prime, 100_000)
    predicted = false_positive_rate(int(load * n_prime), n_prime)
    assert np.mean(registers[absent] > 0) == pytest.approx(predicted, abs=0.01)


def test_the_false_positive_rate_at_its_ends() -> None:
    assert false_positive_rate([0, 1, 7], [1, 1, 1]).tolist() == [0, 1, 1]
    assert false_positive_rate([1, 10**9], 4).tolist() == [0.25, 1]


@pytest.mark.parametrize("tau", [TAU, 3])
def test_what_is_said_to_be_probable_is_so_often(tau: int) -> None:
    """Among the chunks with a given register value, the share that the node holds is the posterior."""
    rng = np.random.default_rng(2)
    n_prime, held, absent = 20_000, 20_000, 30_000
    register = rng.integers(0, n_prime, held + absent)
    registers = np.minimum(np.bincount(register[:held], minlength=n_prime), tau)
    values = registers[register].astype(np.uint8)
    said = candidates(values[:, None], [held], n_prime, tau, held / (held + absent), 0.0).probabilities[:, 0]
    for value in range(1, min(tau, 4) + 1):
        here = values == value
        share = np.mean(np.flatnonzero(here) < held)
        assert share == pytest.approx(said[here][0], abs=5 * np.sqrt(0.25 / here.sum()))
    assert (said[:held] > 0).all()


def test_bayes_by_hand() -> None:
    """At a load of 1/4, a register value of 2 is eight times as likely if the node holds the chunk: odds of 0.6 : 0.4
    become 12 : 1.
    """
    assert posterior(2, 250, 1000, prior=0.6) == pytest.approx(12 / 13)
    assert posterior(0, 250, 1000, prior=0.6, loss=0.5) == pytest.approx(0.3 / 0.7)
    assert posterior(2, 250, 1000, prior=0.6, loss=0.5) == pytest.approx(0.6 * 4.5 / (0.6 * 4.5 + 0.4))


@given(
    st.integers(0, TAU),
    st.floats(0, 1e9),
    st.integers(1, 10**8),
    st.just(0.0) | st.floats(1e-200, 1),  # Half of a number near 0 might round to 0.
    st.floats(0.01, 1),
    st.integers(1, TAU),
)
def test_zero_proves_absence_only_in_a_trusted_sketch(
    value: int, chunks: float, n_prime: int, prior: float, loss: float, tau: int
) -> None:
    value = min(value, tau)
    assert posterior(0, chunks, n_prime, prior=prior, tau=tau) == 0
    trusted = posterior(value, chunks, n_prime, prior=prior, tau=tau)
    untrusted = posterior(value, chunks, n_prime, prior=prior, loss=loss, tau=tau)
    assert 0 <= trusted <= 1 and 0 <= untrusted <= 1
    if prior > 0:
        assert untrusted > 0 and (trusted > 0 or value == 0)
    assert posterior(value, chunks, n_prime, prior=prior, loss=1.0, tau=tau) == pytest.approx(prior)


def test_certainty_before_remains_unless_disproved() -> None:
    assert posterior(0, 10, 100, prior=1.0) == 0
    assert posterior(0, 10, 100, prior=1.0, loss=0.1) == 1
    assert posterior(1, 10, 100, prior=1.0) == 1
    assert posterior(1, 10, 100, prior=0.0, loss=0.1) == 0


def test_a_node_holds_no_fewer_chunks_than_a_register_counts() -> None:
    assert posterior(1, 0, 1000, prior=0.5) == pytest.approx(1000 / 1001)
    assert posterior(3, 1, 1000, prior=0.5) == pytest.approx(1000 / 1001)


def test_a_saturated_register_weighs_its_mean() -> None:
    """A saturated register has at least tau chunks.

    At load 1 with tau 1, a saturated register has 1 / (1 - 1/e) chunks on average. At a load far above tau, the average
    number of chunks in such a register is the load.
    """
    mean = 1 / (1 - np.exp(-1))
    assert posterior(1, 1000, 1000, prior=0.5, tau=1) == pytest.approx(mean / (1 + mean))
    assert posterior(3, 10**6, 1000, prior=0.3, tau=3) == pytest.approx(0.3)


def test_candidates_come_in_order() -> None:
    values = np.array([[0, 1, 3, 1], [0, 0, 0, 0], [2, 2, 2, 2]], np.uint8)
    found = candidates(values, [100, 100, 100, 10], 1000, TAU, [0.6, 0.6, 0.6, 0.6], [0, 0, 0, 0])
    assert found.order.tolist() == [[3, 2, 1, 0], [0, 1, 2, 3], [3, 0, 1, 2]]
    absent = candidates(values[1:2], [100, 100, 100, 10], 1000, TAU, [0.2, 0.9, 0.6, 0.6], 0.0)
    assert absent.order.tolist() == [[1, 2, 3, 0]]


def test_sketches_of_different_sizes() -> None:
    found = candidates(np.array([[1, 1]], np.uint8), [100, 100], [1000, 2000], TAU, 0.5, 0.0)
    assert found.probabilities[0].tolist() == pytest.approx([10 / 11, 20 / 21])


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1)])
def test_no_chunks_no_nodes(shape: tuple[int, int]) -> None:
    found = candidates(np.zeros(shape, np.uint8), np.zeros(shape[1]), 10, TAU, 0.6, 0.0)
    assert found.probabilities.shape == found.order.shape == shape


@pytest.mark.parametrize(
    ("chunks", "n_prime", "tau", "prior", "loss"),
    [(-1, 10, 5, 0.5, 0), (1, 0, 5, 0.5, 0), (1, 10, 2, 0.5, 0), (1, 10, 5, 1.1, 0), (1, 10, 5, 0.5, -0.1)],
)
def test_impossible_arguments_are_refused(chunks: int, n_prime: int, tau: int, prior: float, loss: float) -> None:
    with pytest.raises(ValueError, match=r"a prior or a loss|a sketch has|not within 0 and 2"):
        candidates(np.array([[3]], np.uint8), [chunks], n_prime, tau, prior, loss)


def test_a_thousand_chunks_on_five_nodes_take_less_than_a_millisecond() -> None:
    values = np.random.default_rng(3).poisson(0.25, (1000, 5)).astype(np.uint8)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        candidates(values, [1000] * 5, 4000, TAU, 0.6, 0.0)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3


def sharing(values: list[list[int]], replicas: int = 3, prior: float = 0.6, mean: float = 3.0) -> list[list[float]]:
    """Return the probabilities that the function `holders` finds for a cluster of equal nodes."""
    registers = np.array(values, np.uint8)
    fills = np.full(registers.shape[1], 100)
    found: list[list[float]] = holders(registers, replicas, fills, mean, 1000, TAU, prior, 0.0).probabilities.tolist()
    return found


def test_a_chunk_alone_in_its_register_is_where_the_register_counts() -> None:
    assert sharing([[1, 0, 1, 1, 0]], prior=0.1) == [[1, 0, 1, 1, 0]]
    assert sharing([[1, 0, 1, 0, 0]]) == [[1, 0, 1, 0, 0]]  # One replica is lost.
    assert sharing([[0, 0, 0, 0, 0]]) == [[0, 0, 0, 0, 0]]
    assert sharing([[2, 2, 2, 0, 0]], prior=0.1) == [[1, 1, 1, 0, 0]]  # Two chunks are on the same three nodes.


def test_chunks_that_share_a_register_share_it_out() -> None:
    assert sharing([[1, 1, 2, 1, 1]])[0] == pytest.approx([0.5, 0.5, 1, 0.5, 0.5])
    assert sharing([[3, 1, 1, 2, 2]])[0] == pytest.approx([1, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert sharing([[1, 1, 1, 1, 0]], replicas=2, mean=2.0)[0] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0])


def test_a_full_node_is_no_likelier_than_its_count() -> None:
    """A prior that tells only how full the nodes are cannot tell the two chunks of a register apart.

    Of two chunks in one register, each is equally likely to be the one on a node.
    """
    fills = np.array([90, 10, 60, 60, 80])
    found = holders(np.array([[1, 1, 2, 1, 1]], np.uint8), 3, fills, 3.0, 1000, TAU, fills / 100, 0.0)
    assert found.probabilities[0] == pytest.approx([0.5, 0.5, 1, 0.5, 0.5])


def test_chunks_that_lack_a_replica_share_the_lack() -> None:
    """A register counts five replicas of two chunks on four nodes: either chunk may be the one that lacks a replica."""
    assert sharing([[0, 2, 2, 1, 0]])[0] == pytest.approx([0, 1, 1, 0.5, 0])


def test_placement_decides_what_counts_leave_open() -> None:
    registers, prior = np.array([[2, 1, 1, 1, 1]], np.uint8), np.array([[0.05, 0.95, 0.95, 0.05, 0.05]])
    found = holders(registers, 3, [100] * 5, 3.0, 1000, TAU, prior, 0.0)
    assert found.order[0].tolist() == [0, 1, 2, 3, 4]
    assert found.probabilities[0, 0] == 1 and found.probabilities[0, 1] > 0.9 > 0.1 > found.probabilities[0, 3]


@given(st.data())
def test_probabilities_add_up_to_the_replicas(data: st.DataObject) -> None:
    nodes = data.draw(st.integers(1, 9))
    row = data.draw(st.lists(st.integers(0, 4), min_size=nodes, max_size=nodes))
    prior = data.draw(st.lists(st.floats(0, 1), min_size=nodes, max_size=nodes))
    fills = data.draw(st.lists(st.integers(0, 1000), min_size=nodes, max_size=nodes))
    replicas = data.draw(st.integers(1, 4))
    found = holders(np.array([row], np.uint8), replicas, fills, 3.0, 1000, TAU, prior, 0.0).probabilities[0]
    assert ((found >= 0) & (found <= 1)).all()
    assert ((found > 0) == (np.array(row) > 0)).all()
    moderate = sharing([row], replicas, mean=min(3.0, 0.9 * nodes + 0.1))[0]
    open_nodes = [p for p in moderate if 0 < p < 1]
    if open_nodes and max(row) > 0:
        mean = min(3.0, 0.9 * nodes + 0.1)
        chunks = max(1 + (sum(row) - replicas) / mean, max(row))
        lacking = max(replicas + (chunks - 1) * mean - sum(row), 0)
        left = replicas - lacking / chunks - moderate.count(1.0)
        aim = min(max(left, 0.005 * len(open_nodes)), 0.995 * len(open_nodes))
        assert sum(open_nodes) == pytest.approx(aim, abs=0.02)


@pytest.mark.parametrize(
    ("n_prime", "tau", "loss"),
    [(1000, TAU, [0, 0, 0.5, 0, 0]), ([1000, 1000, 2000, 1000, 1000], TAU, 0.0), (1000, 2, 0.0)],
    ids=["a sketch that is not trusted", "sketches of two sizes", "a saturated register"],
)
def test_where_the_sum_says_nothing_each_node_is_judged_for_itself(
    n_prime: int | list[int], tau: int, loss: float | list[float]
) -> None:
    registers = np.array([[2, 1, 1, 1, 0], [0, 0, 2, 0, 0]], np.uint8)
    found = holders(registers, 3, [100] * 5, 3.0, n_prime, tau, 0.6, loss)
    alone = candidates(registers, [100] * 5, n_prime, tau, 0.6, loss)
    assert np.array_equal(found.probabilities, alone.probabilities) and np.array_equal(found.order, alone.order)


@pytest.mark.parametrize("load", [0.05, 0.25, 1.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_cluster_that_grew_is_known_better_by_all_registers_together(load: float, mixed: bool) -> None:
    """A cluster grew from five nodes to eight, and no replica was moved.

    Placement now prefers new nodes for many chunks.
    """
    rng, n_prime = np.random.default_rng(60), 20_000
    chunks = int(load * n_prime)
    times = rng.standard_exponential((chunks, 8))
    replicas = rng.integers(2, 4, chunks) if mixed else np.full(chunks, 3)
    held = np.zeros((8, chunks), np.bool_)
    held[:5] = (np.argsort(np.argsort(times[:, :5], axis=1), axis=1) < replicas[:, None]).T
    preferred = np.argsort(np.argsort(times, axis=1), axis=1) < replicas[:, None]
    register = rng.integers(0, n_prime, chunks)
    values = count(held, register, n_prime, TAU)[:, register].T
    others = (1 - 0.9) * replicas[:, None] / (8 - replicas[:, None])
    fills, prior = held.sum(axis=1), np.where(preferred, 0.9, others)
    together = holders(values, replicas, fills, fills.sum() / chunks, n_prime, TAU, prior, 0.0).probabilities
    alone = candidates(values, fills, n_prime, TAU, np.where(preferred, 0.95, others / 2), 0.0).probabilities
    shared = values * replicas[:, None] / values.sum(axis=1, keepdims=True)
    error, error_alone, error_shared = (np.mean((said - held.T) ** 2) for said in (together, alone, shared.clip(0, 1)))
    assert error < 0.35 * error_alone and error < 0.8 * error_shared
    certain = together >= 0.99
    assert held.T[certain].mean() > 0.99
    assert certain.sum() > 0.55 * held.sum()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_holders_of_no_chunks_on_no_nodes(shape: tuple[int, int]) -> None:
    found = holders(np.zeros(shape, np.uint8), 3, np.zeros(shape[1]), 3.0, 10, TAU, 0.6, 0.0)
    assert found.probabilities.shape == found.order.shape == shape


def test_a_chunk_has_at_least_one_replica() -> None:
    for replicas, mean in ((0, 3.0), (3, 0.5)):
        with pytest.raises(ValueError, match="at least one replica"):
            holders(np.ones((1, 3), np.uint8), replicas, [1, 1, 1], mean, 10, TAU, 0.6, 0.0)


def test_the_holders_of_64_chunks_take_less_than_60_microseconds_each() -> None:
    rng = np.random.default_rng(61)
    values, prior, times = rng.poisson(0.4, (64, 5)).astype(np.uint8), rng.random((64, 5)), []
    for _ in range(20):
        start = time.perf_counter()
        holders(values, 3, [1000] * 5, 3.0, 10_000, TAU, prior, 0.0)
        times.append(time.perf_counter() - start)
    assert min(times) < 64 * 60e-6
