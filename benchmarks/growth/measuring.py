"""Measures every operation once with few rows and once with many rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from benchmarks.growth import operations, plans, rows, tracing
from benchmarks.growth.installation import Failure, Installation
from benchmarks.growth.operations import Installed
from storage.models import Chunk, Cluster, File, Tally
from storage.services.survey import GROWTH_LOAD
from storage.tracking.store import sketch_size


@dataclass(frozen=True)
class Scale:
    """The size of the measurement: number of files, chunks of each file, and repeats."""

    files: int
    chunks: int
    repeat: int


def report(few: Installation, many: Installation, uploaded: int, scale: Scale, plans_path: Path | None) -> str:
    """Fill the database of ``many``, measure both installations, and return the tables."""
    small, large = operations.prepare(few, uploaded), operations.prepare(many, uploaded)
    epoch, before = Cluster.load().topology_epoch, rows.sizes()
    alone = {name: operations.medians([work], scale.repeat)[0] for name, work in operations.periodic().items()}
    with tracing.untraced():
        begun = time.monotonic()
        rows.fill(scale.files, scale.chunks)
        filled, after = time.monotonic() - begun, rows.sizes()
        times = _timed(small, large, alone, scale)
        _require_exact(scale.files + uploaded, epoch)
        if plans_path:
            explained = {name: plans.of(operation) for name, operation in operations.statements(large).items()}
            plans_path.write_text("\n".join(f"## {name}\n\n{plans.shown(found)}" for name, found in explained.items()))
        traced = tracing.measure(large.hashes)
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        version = cursor.fetchone()[0]
    return "\n".join(
        [
            table(("median, ms", "few rows", "many", "ratio"), _times(times)),
            table(("table", "rows", "table, bytes a row", "indexes, bytes a row"), _sizes(before, after)),
            _per_chunk(before, after, scale),
            str(traced),
            f"PostgreSQL {version}; {scale.files:,} files of {scale.chunks} chunks, made in {filled:.0f} s; "
            f"medians of {scale.repeat}, of requests in turn.",
        ]
    )


def _timed(small: Installed, large: Installed, alone: dict[str, float], scale: Scale) -> dict[str, list[float]]:
    """Return name of the operation → milliseconds with few rows and with many.

    ``alone`` has the times of the periodic work with few rows, which were measured before the rows were made.
    """
    times = {}
    first, second = operations.requests(small), operations.requests(large)
    for name in first:
        times[name] = operations.medians([first[name], second[name]], scale.repeat)
    for name, work in operations.periodic().items():
        times[name] = [alone[name], *operations.medians([work], scale.repeat)]
    return times


def table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|---|{'--:|' * (len(heads) - 1)}", *(f"| {' | '.join(r)} |" for r in body)]
    return "\n".join([*lines, ""])


def _times(times: dict[str, list[float]]) -> list[tuple[str, ...]]:
    return [(name, f"{few:.1f}", f"{many:.1f}", f"{many / few:.2f}") for name, (few, many) in times.items()]


def _sizes(before: dict[str, rows.Size], after: dict[str, rows.Size]) -> list[tuple[str, ...]]:
    body = []
    for name, size in after.items():
        more = size.rows - before[name].rows
        shares = ((new - old) / max(1, more) for new, old in _parts(before[name], size))
        body.append((name.removeprefix("storage_"), f"{size.rows:,}", *(f"{share:.0f}" for share in shares)))
    return body


def _parts(old: rows.Size, new: rows.Size) -> tuple[tuple[int, int], tuple[int, int]]:
    return (new.table, old.table), (new.indexes, old.indexes)


def _per_chunk(before: dict[str, rows.Size], after: dict[str, rows.Size], scale: Scale) -> str:
    chunks = scale.files * scale.chunks
    grown = {name: sum(new - old for new, old in _parts(before[name], after[name])) for name in after}
    own = (grown["storage_chunk"] + grown["storage_manifestentry"]) / chunks
    cluster = Cluster.load()
    registers = cluster.base_n_prime
    while chunks > GROWTH_LOAD * registers:
        registers *= 2
    sketches = sketch_size(registers) * cluster.num_nodes
    return (
        f"A chunk takes {own:.0f} bytes in PostgreSQL with its place in a manifest, {sum(grown.values()) / chunks:.0f} "
        f"with its share of content, file and job; {sum(grown.values()) / (1 << 30):.1f} GiB in all. In Redis the "
        f"{cluster.num_nodes} sketches of {registers:,} registers have {sketches >> 20} MiB: "
        f"{sketches / chunks:.1f} bytes a chunk.\n"
    )


def _require_exact(files: int, epoch: int) -> None:
    """Raise an error if the totals differ from a count of the rows, or if a node has been away.

    If a node had been away, the system would have examined all contents, which would disturb the measurement.
    """
    tallied = (sum(Tally.totals(what).values()) for what in (Tally.What.FILES, Tally.What.CHUNKS))
    if tuple(tallied) != (File.objects.count(), Chunk.objects.count()) or File.objects.count() < files:
        raise Failure("the totals are wrong")
    if Cluster.load().topology_epoch != epoch:
        raise Failure("a node was away for a moment; what was measured is not a quiet system")
