import doctest
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sketches
from sketches.estimators import Estimate
from sketches.simulate import __main__ as command
from sketches.simulate.placement import Placement, count, mixture, sketch, weighted, zoned
from sketches.simulate.report import advice, provable, report
from sketches.simulate.scenario import Scenario
from sketches.simulate.trials import Answers, run

README = Path(str(sketches.__file__)).with_name("README.md")


def scenario(**changes: object) -> Scenario:
    healthy = {"nodes": 5, "chunks": 1000, "replication": {3: 1.0}, "n_prime": 2000, "tau": 10}
    whole = {"placement": "uniform", "degraded": 0.0, "offline": 0}
    return Scenario(**{**healthy, **whole, **changes})  # type: ignore[arg-type]


# -- placement ---------------------------------------------------------------


def test_each_chunk_has_its_replicas_on_distinct_zones_first() -> None:
    held = zoned(6).hold(np.repeat([2, 3, 4], 500), np.random.default_rng(1))
    zones = held[:3].astype(int) + held[3:]
    assert held.sum(axis=0).tolist() == np.repeat([2, 3, 4], 500).tolist()
    assert zones[:, :500].max() == 1  # Two replicas lie in two zones.
    assert (zones[:, 500:1000] == 1).all()
    assert (zones[:, 1000:] >= 1).all()


def test_the_first_choice_is_proportional_to_the_weight() -> None:
    order = weighted(4).rank(20_000, np.random.default_rng(2))
    shares = np.bincount(order[:, 0]) / 20_000
    np.testing.assert_allclose(shares, np.array([1, 2, 3, 4]) / 10, atol=0.012)
    assert (np.sort(order, axis=1) == np.arange(4)).all()


def test_holders_are_the_first_in_rank() -> None:
    placement = Placement(np.array([1.0, 5, 2, 3]), np.array([0, 0, 1, 1]))
    first = placement.rank(300, np.random.default_rng(3))[:, :2]
    held = placement.hold(np.full(300, 2), np.random.default_rng(3))
    assert np.take_along_axis(held.T, first, axis=1).all()


def test_a_chunk_falls_into_one_register_on_all_its_nodes() -> None:
    held = np.array([[True, True, False], [True, False, True]])
    assert count(held, np.array([1, 1, 0]), 3, 10).tolist() == [[0, 2, 0], [1, 1, 0]]
    assert count(held, np.array([1, 1, 0]), 3, 1).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert sketch(held, 3, np.random.default_rng(4)).sum(axis=1).tolist() == [2, 2]


def test_rounding_goes_to_the_last_share() -> None:
    assert np.bincount(mixture(101, {2: 0.5, 3: 0.5})).tolist() == [0, 0, 50, 51]


# -- scenarios ---------------------------------------------------------------


def test_a_realisation_loses_one_replica_of_the_degraded_and_all_of_the_offline() -> None:
    seen = scenario(replication={1: 0.2, 3: 0.8}, degraded=0.1).realise(np.random.default_rng(5))
    lost = seen.placed.sum(axis=0) - seen.replicas
    assert lost.max() == 1 and lost.sum() == 100
    assert not (seen.held & ~seen.placed).any()
    away = scenario(offline=2).realise(np.random.default_rng(5))
    assert away.registers.shape == (3, 2000) and away.held.shape == (3, 1000)
    assert (away.held == away.placed[away.online]).all()
    assert (away.registers.sum(axis=1) == away.held.sum(axis=1)).all()


@pytest.mark.parametrize("placement", ["uniform", "weighted", "zoned"])
def test_healthy_nodes_and_sound_sketches_score_low(placement: str) -> None:
    trials = run(scenario(placement=placement, nodes=6, replication={2: 0.5, 3: 0.5}), 60, 6)
    for scores in trials.scores.values():
        assert abs(np.mean(scores)) < 0.25 and 0.8 < np.std(scores) < 1.2
        assert np.mean(np.abs(scores) > 3) < 0.01


def test_nodes_offline_are_no_sign_of_ill_health_but_lost_replicas_are() -> None:
    sound = run(scenario(offline=2), 60, 7).scores["null, pairs of nodes"]
    assert abs(np.mean(sound)) < 0.3
    ill = run(scenario(degraded=0.3), 20, 7).scores["null, pairs of nodes"]
    assert np.mean(ill) < -2


# -- trials ------------------------------------------------------------------


def test_estimators_are_as_good_as_they_say() -> None:
    trials = run(scenario(placement="weighted", degraded=0.2, tau=255), 150, 8)
    assert len(trials.answers) == 11
    for name, answers in trials.answers.items():
        assert answers.coverage > 0.88, name
        assert abs(answers.bias) < 0.3 * max(answers.rmse, 1e-12), name
        if answers.predicted_sd > 0:
            assert 0.8 < answers.rmse / answers.predicted_sd < 1.2, name
    assert trials.answers["fewer than 3, by zeros"].mean == 200
    assert trials.answers["union"].mean == 1000
    assert trials.levels.sum() == pytest.approx(2000)
    assert np.mean(trials.false_positives) == pytest.approx(np.mean(trials.predicted_false_positives), abs=0.005)
    assert trials.saturated == [0.0] * 150


def test_routing_is_perfect_without_collisions_and_worse_with_them() -> None:
    sparse = run(scenario(n_prime=10**6), 3, 9)
    full = run(scenario(n_prime=500, degraded=0.2), 3, 9)
    assert np.mean(sparse.first_hits) > 0.999 and np.mean(sparse.all_hits) > 0.99
    assert np.mean(full.all_hits) < np.mean(full.first_hits) < 1
    assert np.mean(full.all_hits) < 0.7
    assert len(sparse.first_hits) == 3000


def test_full_registers_answer_with_bounds() -> None:
    trials = run(scenario(n_prime=100, tau=3), 5, 10)
    below = trials.answers["fewer than 3, by zeros"]
    assert below.coverage == 1 and not below.truth and math.isnan(below.rmse)
    assert np.mean(trials.saturated) > 0.5
    text = report(trials)
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("fewer than 3, by zeros")] == ["100%"]


def test_all_is_as_the_seed_says() -> None:
    first, again, other = (report(run(scenario(), 5, seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_answers_by_hand() -> None:
    answers = Answers()
    answers.add(10.0, Estimate(12.0, 11.0, 13.0, saturated=False), 4.0)
    answers.add(10.0, Estimate(9.0, 8.0, 10.0, saturated=False), 4.0)
    answers.add(10.0, Estimate(7.0, 7.0, None, saturated=True))
    assert (answers.bias, answers.rmse, answers.predicted_sd) == (0.5, math.sqrt(2.5), 2.0)
    assert answers.coverage == pytest.approx(2 / 3) and answers.mean == 10.0


# -- the report --------------------------------------------------------------


def test_advice_names_a_size_of_the_right_load() -> None:
    trials = run(scenario(chunks=2500, n_prime=1000), 1, 11)
    assert "N_PRIME = 1000 grows by itself to 16000" in advice(trials)
    assert "N_PRIME = 10000 is enough" in advice(run(scenario(chunks=2500, n_prime=10_000), 1, 11))


@pytest.mark.parametrize(("load", "chunks"), [(0.001, 1), (0.05, 1), (0.06, 2), (0.25, 2), (1, 7), (3, 59)])
def test_provable_is_the_fewest_that_show(load: float, chunks: int) -> None:
    hidden = 1 - math.exp(-load)
    assert provable(load) == chunks
    assert 1 - hidden**chunks >= 0.95 and (chunks == 1 or 1 - hidden ** (chunks - 1) < 0.95)


# -- the command -------------------------------------------------------------


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--chunks", "300", "--n-prime", "500", "1000", "--replication", "2:0.5,3:0.5", "--offline", "1"]
    assert command.main([*options, "--runs", "5", "--output", str(tmp_path), "--plots", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("below their target, at least") == 2 and "N' = 500" in text and "N' = 1000" in text
    table = (tmp_path / "accuracy.csv").read_text().splitlines()
    assert table[0].startswith("n_prime,quantity,truth,bias,RMSE") and len(table) == 1 + 2 * 12
    for name in ("accuracy", "coverage", "routing", "spectrum"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "options",
    [
        ["--replication", "6"],
        ["--replication", "0"],
        ["--replication", "2:0.5,3:0.6"],
        ["--replication", "2:0.5,2:0.5"],
        ["--replication", "two"],
        ["--n-prime", "0"],
        ["--tau", "256"],
        ["--offline", "5"],
        ["--degraded", "1.5"],
        ["--placement", "random"],
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main([*options, "--runs", "1"])
    assert refused.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m sketches.simulate: error:")


def test_without_matplotlib_there_are_no_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        command.main(["--plots", str(tmp_path)])
    answer = capsys.readouterr()
    assert "--plots needs matplotlib: pip install matplotlib" in answer.err and not answer.out


def test_it_runs_on_numpy_and_mmh3_alone() -> None:
    modules = {"django", "redis", "storage", "occsite", "tests", "matplotlib"}
    script = f"import sys, sketches.simulate.__main__; print({modules} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", script], cwd=README.parent.parent, capture_output=True, text=True)
    assert done.stdout.strip() == "none", done.stdout + done.stderr


# -- the examples of sketches/README.md ----------------------------------------


def test_the_examples_in_the_readme_run() -> None:
    results = doctest.testfile(str(README), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 15 and results.failed == 0


def test_the_readme_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    command.main([])
    assert f"```text\n{capsys.readouterr().out.strip()}\n```" in README.read_text()


def test_the_figures_of_the_readme_are_there_and_small() -> None:
    figures = sorted(README.parent.glob("figures/*.png"))
    assert [figure.stem for figure in figures] == ["accuracy", "coverage", "routing", "spectrum"]
    for figure in figures:
        assert figure.stat().st_size < 100_000
        assert f"(figures/{figure.name})" in README.read_text()
