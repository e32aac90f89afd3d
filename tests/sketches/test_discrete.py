import numpy as np
import pytest

from sketches.estimators.discrete import score_bound
from sketches.estimators.null import fitted_overlap
from sketches.estimators.overlap import pairwise_overlaps
from sketches.simulate.placement import sketch, uniform


def test_the_bound_of_one_score_is_the_normal_quantile() -> None:
    assert score_bound(1) == pytest.approx(2.5758, abs=1e-4)
    assert score_bound(1, 0.05) == pytest.approx(1.95996, abs=1e-4)
    assert score_bound(0) == score_bound(1)
    assert score_bound(190) == pytest.approx(4.04, abs=0.005)


@pytest.mark.parametrize("scores", [1, 28, 190, 20_000])
def test_the_largest_of_normal_scores_is_beyond_as_rarely_as_asked(scores: int) -> None:
    rng = np.random.default_rng(40)
    largest = np.array([np.abs(rng.standard_normal(scores)).max() for _ in range(2000)])
    for level in (0.01, 0.1):
        beyond = np.count_nonzero(largest > score_bound(scores, level))
        assert abs(beyond - 2000 * level) < 4 * np.sqrt(2000 * level)


def test_healthy_surveys_of_twenty_nodes_are_within_it() -> None:
    rng, above, largest = np.random.default_rng(41), np.triu_indices(20, 1), []
    for _ in range(100):
        held = uniform(20).hold(np.full(2500, 3), rng)
        null = fitted_overlap({3: 2500}, held.sum(axis=1))
        largest.append(np.abs(null.scores(pairwise_overlaps(sketch(held, 10_000, rng)))[above]).max())
    assert np.mean(np.array(largest) > 3) > 0.2  # For the worst of many pairs, a bound of 3 is too low.
    assert 0.02 < np.mean(np.array(largest) > score_bound(len(above[0]), 0.1)) < 0.2
    assert np.mean(np.array(largest) > score_bound(len(above[0]))) <= 0.05


@pytest.mark.parametrize(("scores", "level"), [(-1, 0.1), (3, 0.0), (3, 1.0)])
def test_impossible_levels_are_refused(scores: int, level: float) -> None:
    with pytest.raises(ValueError, match="have no bound"):
        score_bound(scores, level)
