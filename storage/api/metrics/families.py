"""Figures of the cluster as families of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from storage.tracking.store import Estimate

T = TypeVar("T")

# The value of a metric, None if it is not known; or, with labels: the values of the labels, as a tuple → the value.
Value: TypeAlias = Mapping[Any, float] | float | None


@dataclass(frozen=True)
class Figure(Generic[T]):
    """A metric whose value is read from the answer of a part of the system.

    Attributes:
        name: the name of the metric; the name of a counter ends in ``_total``.
        documentation: the meaning of the metric.
        read: a function that takes the value from the part's answer.
        labels: the names of the metric's labels.
    """

    name: str
    documentation: str
    read: Callable[[T], Value]
    labels: tuple[str, ...] = ()

    def show(self, found: T | None) -> Metric:
        """The metric; without samples if the part has not answered."""
        value = None if found is None else self.read(found)
        values = value if isinstance(value, Mapping) else {} if value is None else {(): value}
        make = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        family: CounterMetricFamily | GaugeMetricFamily = make(self.name, self.documentation, labels=self.labels)
        for labels, number in sorted(values.items()):
            family.add_metric(labels, float(number))
        return family


def show(figures: Iterable[Figure[T]], found: T | None) -> Iterator[Metric]:
    """The metrics of a part; without samples if the part has not answered."""
    for figure in figures:
        yield figure.show(found)


def estimated(
    name: str, documentation: str, read: Callable[[T], Mapping[Any, Estimate]], *labels: str
) -> tuple[Figure[T], ...]:
    """Three figures: the estimates, and the ends of their 95 % intervals. An unknown upper end is left out."""

    def estimates(found: T) -> Value:
        return {key: one.estimate for key, one in read(found).items()}

    def lower_bounds(found: T) -> Value:
        return {key: one.lower_bound for key, one in read(found).items()}

    def upper_bounds(found: T) -> Value:
        return {key: one.upper_bound for key, one in read(found).items() if one.upper_bound is not None}

    return (
        Figure(name, f"{documentation}: estimated.", estimates, labels),
        Figure(f"{name}_lower_bound", f"{documentation}: at least.", lower_bounds, labels),
        Figure(f"{name}_upper_bound", f"{documentation}: at most.", upper_bounds, labels),
    )
