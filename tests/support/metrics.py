"""The metrics of ``/metrics``, read as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from storage.api.metrics import exposition
from storage.api.metrics.cluster import Cluster
from tests.support.api import WholeClient


@dataclass(frozen=True)
class Scrape:
    """One answer of ``/metrics``.

    Attributes:
        samples: (name, sorted labels) → value.
        names: the names of all samples that the metrics can have, including samples that are absent now.
    """

    samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
    names: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Scrape:
        samples, names = {}, set()
        for family in text_string_to_metric_families(text):
            names |= _names(family.name, family.type)
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in samples, f"{key} is there twice"
                samples[key] = sample.value
        return cls(samples, frozenset(names))

    def __call__(self, name: str, /, **labels: str) -> float | None:
        """The value of a sample; None if there is no such sample."""
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def labels(self, name: str, label: str) -> set[str]:
        """All values of a label of a metric."""
        return {dict(labels)[label] for known, labels in self.samples if known == name and label in dict(labels)}


def _names(name: str, kind: str) -> set[str]:
    if kind == "counter":
        return {f"{name}_total"}
    return {f"{name}{end}" for end in ("_bucket", "_count", "_sum")} if kind == "histogram" else {name}


def scrape(headers: Mapping[str, str] | None = None) -> Scrape:
    """Ask for the metrics. The figures of the cluster are read again, and not taken from a cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exposition, "_cluster", Cluster())
        answer = WholeClient().get("/metrics", headers=dict(headers or {}))
    assert answer.status_code == 200, answer.content
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape.of(answer.content.decode())
