"""The geometry of plots over time, and the tables behind them. All functions are pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from storage.console import words

WIDTH, HEIGHT = 560.0, 120.0
LEFT = 116.0
TICKS = 4
DENSE = timedelta(days=1)  # In this span of time before now, there is a sample for each minute.
GAP, GAP_LATER = timedelta(minutes=5), timedelta(minutes=125)  # Samples further apart than this have a gap between.
POINTS = 144
MOST_ROWS = 24  # A table has at most this many rows: each is the mean of a part of the time.
Sample = Mapping[str, Any]
Value = float | None


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        name: what the line shows.
        paths: its parts as the points of polylines. A gap in the samples is a gap in the line.
        kind: the CSS class that colours the line, ``first`` or ``second``.
    """

    name: str
    paths: Sequence[str]
    kind: str


@dataclass(frozen=True)
class Timeline:
    """A plot over time.

    Attributes:
        title: what is plotted.
        explanation: a sentence on how to read it.
        lines: its lines.
        ticks: height and label of each line of the scale.
        times: place and label of points of time on the axis.
        header: the columns of the table behind it, without the time.
        rows: the table: a time, and the figures as text.
        now: the latest figures as text.
        is_empty: True if there is nothing to draw yet.
    """

    title: str
    explanation: str
    lines: Sequence[Line]
    ticks: Sequence[tuple[float, str]]
    times: Sequence[tuple[float, str]]
    header: Sequence[str]
    rows: Sequence[tuple[datetime, Sequence[str]]]
    now: str

    @property
    def is_empty(self) -> bool:
        return not any(line.paths for line in self.lines)


@dataclass(frozen=True)
class _Subject:
    """A plot before its figures are known.

    Attributes:
        title, explanation: as in ``Timeline``.
        series: name of each line → the figures, one for each sample.
        form: a function that makes a label of a figure.
        top: the figure at the top of the scale, unless a figure of the series is larger.
    """

    title: str
    explanation: str
    series: Mapping[str, Sequence[Value]]
    form: Callable[[float], str]
    top: float


def of(samples: Sequence[Sample], now: datetime, hours: int) -> list[Timeline]:
    """The plots of a history.

    Args:
        samples: the ``samples`` of ``/history``, the oldest first.
        now: the end of the axis of time.
        hours: the length of this axis.
    """
    times = [words.moment(sample["at"]) or now for sample in samples]
    return [_drawn(subject, times, now, hours) for subject in _subjects(samples, times)]


def _subjects(samples: Sequence[Sample], times: Sequence[datetime]) -> list[_Subject]:
    def figures(name: str) -> list[Value]:
        return [sample.get(name) for sample in samples]

    looks = [
        None if reads is None or not reads or later is None else max(0.0, 1 - later / reads)
        for reads, later in zip(
            growth(figures("reads"), times, each=False), growth(figures("later_looks"), times, each=False), strict=True
        )
    ]
    full = [
        1 - sample["free"] / sample["disks"] if sample.get("disks") and sample.get("free") is not None else None
        for sample in samples
    ]
    return [
        _Subject(
            "Stored per second",
            "Bytes of uploads that were stored, on average over each interval.",
            {"bytes a second": growth(figures("bytes"), times)},
            lambda value: f"{words.size(value)}/s",
            1000.0,
        ),
        _Subject(
            "Waiting",
            "Jobs that wait for a worker. A line that grows means that the workers do not keep up.",
            {"uploads": figures("queued"), "maintenance": figures("waiting")},
            _number,
            4.0,
        ),
        _Subject(
            "Stored, with all copies",
            "Bytes on all nodes.",
            {"bytes": figures("stored")},
            words.size,
            1000.0,
        ),
        _Subject(
            "Full disks",
            "The share of the nodes' disks that is taken, to a sixteenth of each disk.",
            {"taken": full},
            _percent,
            1.0,
        ),
        _Subject(
            "Sketches",
            "Load is the number of parts per register. A false positive is a look at a node that has no copy. Past a "
            "load of 25 % the sketches grow by themselves.",
            {"load": figures("load"), "false positives": figures("false_positives")},
            _percent,
            0.25,
        ),
        _Subject(
            "Found at the first look",
            "The share of parts that a download found on the first node it asked.",
            {"first look": looks},
            _percent,
            1.0,
        ),
    ]


def growth(counts: Sequence[Value], times: Sequence[datetime], *, each: bool = True) -> list[Value]:
    """The growth of a count from sample to sample: for each second, or with ``each=False`` in all.

    A count that has fallen began again at 0. The first sample has no growth.
    """
    found: list[Value] = []
    before: tuple[float, datetime] | None = None
    for count, at in zip(counts, times, strict=True):
        if count is None or before is None:
            found.append(None)
        else:
            grown = count - before[0] if count >= before[0] else count
            seconds = (at - before[1]).total_seconds()
            found.append(grown / seconds if each and seconds > 0 else grown)
        before = None if count is None else (count, at)
    return found


def _drawn(subject: _Subject, times: Sequence[datetime], now: datetime, hours: int) -> Timeline:
    begin = now - timedelta(hours=hours)
    known = [value for series in subject.series.values() for value in series if value is not None]
    top = max([subject.top, *known])

    def place(at: datetime) -> float:
        return LEFT + (WIDTH - LEFT) * (at - begin).total_seconds() / (hours * 3600)

    def level(value: float) -> float:
        return HEIGHT * (1 - value / top)

    lines = []
    for (name, series), kind in zip(subject.series.items(), ("first", "second"), strict=False):
        points = _thinned([(at, value) for at, value in zip(times, series, strict=True) if value is not None], hours)
        paths = [
            " ".join(f"{place(at):.1f},{level(value):.1f}" for at, value in part)
            for part in _parts(points, now, 2.5 * _span(hours))
        ]
        lines.append(Line(name, paths, kind))
    latest = [next(filter(_is_known, reversed(series)), None) for series in subject.series.values()]
    return Timeline(
        subject.title,
        subject.explanation,
        lines,
        [
            (round(level(top * step / TICKS), 1), subject.form(top * step / TICKS) if step else "0")
            for step in (0, 2, TICKS)
        ],
        [(round(place(at), 1), _clock(at, hours)) for at in _marks(begin, hours)],
        list(subject.series),
        _table(subject, times),
        " · ".join(
            f"{subject.form(value)}{f' {name}' if len(latest) > 1 else ''}"
            for name, value in zip(subject.series, latest, strict=True)
            if value is not None
        ),
    )


def _thinned(points: Sequence[tuple[datetime, float]], hours: int) -> list[tuple[datetime, float]]:
    """The means of at most ``POINTS`` spans of time: a picture shows no more."""
    spans: dict[float, list[tuple[datetime, float]]] = {}
    for at, value in points:
        spans.setdefault(at.timestamp() // _span(hours).total_seconds(), []).append((at, value))
    return [(run[-1][0], sum(value for _, value in run) / len(run)) for run in spans.values()]


def _span(hours: int) -> timedelta:
    return max(timedelta(minutes=1), timedelta(hours=hours) / POINTS)


def _parts(
    points: Sequence[tuple[datetime, float]], now: datetime, gap: timedelta
) -> Iterable[list[tuple[datetime, float]]]:
    """Split the points into runs without a gap. Of samples that are older than a day, only one in an hour is kept."""
    part: list[tuple[datetime, float]] = []
    for point in points:
        if part and point[0] - part[-1][0] > max(gap, GAP if now - part[-1][0] < DENSE else GAP_LATER):
            yield part
            part = []
        part.append(point)
    if part:
        yield part


def _marks(begin: datetime, hours: int) -> list[datetime]:
    return [begin + timedelta(hours=hours * step / TICKS) for step in range(1, TICKS)]


def _clock(at: datetime, hours: int) -> str:
    return f"{at:%H:%M}" if hours <= 24 else f"{at.day} {at:%b}"


def _table(subject: _Subject, times: Sequence[datetime]) -> list[tuple[datetime, list[str]]]:
    """The figures behind a plot, the newest first: the mean of each of ``MOST_ROWS`` runs of samples."""
    length = max(1, -(-len(times) // MOST_ROWS))
    rows = []
    for start in range(0, len(times), length):
        cells = []
        for series in subject.series.values():
            known = [value for value in series[start : start + length] if value is not None]
            cells.append(subject.form(sum(known) / len(known)) if known else "–")
        rows.append((times[min(start + length, len(times)) - 1], cells))
    return rows[::-1]


def _is_known(value: Value) -> bool:
    return value is not None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 or not value else f"{100 * value:.2g} %"
