import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sketches.estimators.membership import candidates, false_positive_rate

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
    """Of the chunks with each register value, as many are held as the posterior says."""
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
    """A value of 2 at a load of 1/4 is eight times as likely if the chunk is there; 0.6 : 0.4 becomes 12 : 1."""
    assert posterior(2, 250, 1000, prior=0.6) == pytest.approx(12 / 13)
    assert posterior(0, 250, 1000, prior=0.6, loss=0.5) == pytest.approx(0.3 / 0.7)
    assert posterior(2, 250, 1000, prior=0.6, loss=0.5) == pytest.approx(0.6 * 4.5 / (0.6 * 4.5 + 0.4))


@given(
    st.integers(0, TAU),
    st.floats(0, 1e9),
    st.integers(1, 10**8),
    st.just(0.0) | st.floats(1e-200, 1),  # not so small that its half is no number any more
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
    """At load 1 a register of at least 1 counts 1 / (1 - 1/e) chunks in the mean; far beyond tau, the load."""
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
    with pytest.raises(ValueError, match=r"a prior or a loss|a sketch has"):
        candidates(np.array([[3]], np.uint8), [chunks], n_prime, tau, prior, loss)


def test_a_thousand_chunks_on_five_nodes_take_less_than_a_millisecond() -> None:
    values = np.random.default_rng(3).poisson(0.25, (1000, 5)).astype(np.uint8)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        candidates(values, [1000] * 5, 4000, TAU, 0.6, 0.0)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3
