"""Try the sketches on a cluster of your shape, before you build it: ``python -m sketches.simulate``.

Chunks are hashed by drawing their registers uniformly at random, and placed as weighted rendezvous hashing would.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from sketches.registers import MAX_TAU
from sketches.simulate.report import COLUMNS, advice, report, rows
from sketches.simulate.scenario import PLACEMENTS, Scenario
from sketches.simulate.trials import Trials, run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulation that the command line asks for, and print its report."""
    parser = _parser()
    options = parser.parse_args(argv)
    scenarios = [_scenario(parser, options, n_prime) for n_prime in options.n_prime]
    if options.plots and find_spec("matplotlib") is None:
        parser.error("--plots needs matplotlib: pip install matplotlib")
    done: list[Trials] = []
    for scenario in scenarios:
        done.append(run(scenario, options.runs, options.seed))
        sys.stdout.write(report(done[-1]) + "\n\n")
    sys.stdout.write(advice(done[0]) + "\n")
    if options.output:
        _write_table(options.output, done)
    if options.plots:
        from sketches.simulate.figures import draw  # matplotlib is optional

        draw(done, options.plots)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sketches.simulate", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5, help="(5)")
    parser.add_argument("--chunks", type=int, default=2500, help="distinct chunks on record (2500)")
    parser.add_argument(
        "--replication",
        type=_shares,
        default={3: 1.0},
        metavar="R[:SHARE,R:SHARE…]",
        help="replication factors and the shares of chunks that have them, such as 2:0.5,3:0.5 (3)",
    )
    parser.add_argument("--n-prime", type=int, nargs="+", default=[10_000], help="registers; one or several (10000)")
    parser.add_argument("--tau", type=int, default=10, help="level at which registers saturate (10)")
    parser.add_argument(
        "--placement",
        choices=list(PLACEMENTS),
        default="uniform",
        help="all nodes alike, weights from 1 to 4, or three zones (uniform)",
    )
    parser.add_argument("--degraded", type=float, default=0.01, help="share of chunks that lost a replica (0.01)")
    parser.add_argument("--offline", type=int, default=0, help="nodes offline (0)")
    parser.add_argument("--runs", type=int, default=200, help="(200)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the accuracy as accuracy.csv")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write figures (needs matplotlib)")
    return parser


def _shares(text: str) -> dict[int, float]:
    parts = [part.partition(":") for part in text.split(",")]
    shares = {int(factor): float(share or 1) for factor, _, share in parts}
    if len(shares) < len(parts) or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise argparse.ArgumentTypeError("the shares of different factors add up to 1")
    return shares


def _scenario(parser: argparse.ArgumentParser, options: argparse.Namespace, n_prime: int) -> Scenario:
    if options.nodes < 1 or not all(1 <= factor <= options.nodes for factor in options.replication):
        parser.error("a replication factor is 1 to the number of nodes")
    if options.chunks < 1 or options.runs < 1 or n_prime < 1 or not 1 <= options.tau <= MAX_TAU:
        parser.error(f"chunks, runs and N' are at least 1, and TAU is 1 to {MAX_TAU}")
    if not 0 <= options.degraded <= 1 or not 0 <= options.offline < options.nodes:
        parser.error("--degraded is a share, and at least one node is online")
    return Scenario(
        nodes=options.nodes,
        chunks=options.chunks,
        replication=options.replication,
        n_prime=n_prime,
        tau=options.tau,
        placement=options.placement,
        degraded=options.degraded,
        offline=options.offline,
    )


def _write_table(folder: Path, done: Sequence[Trials]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "accuracy.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("n_prime", *COLUMNS))
        table.writerows((trials.scenario.n_prime, *row) for trials in done for row in rows(trials))


if __name__ == "__main__":
    sys.exit(main())
