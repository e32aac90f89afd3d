"""The answer of ``/metrics``: the counts of this machine's processes, and the figures of the cluster."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric

from storage.api.metrics import requests, seats
from storage.api.metrics.cluster import Cluster

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_cluster = Cluster()


def text() -> bytes:
    """All metrics in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Own())
    registry.register(_cluster)
    return generate_latest(registry)


class _Own:
    """The counts of this machine's processes, including metrics that are still 0."""

    def collect(self) -> Iterator[Metric]:
        gathered = seats.gathered()
        if gathered is None:
            yield from requests.REGISTRY.collect()
            return
        counted = {metric.name: metric for metric in gathered.collect()}
        for declared in requests.REGISTRY.collect():
            yield counted.get(declared.name) or Metric(declared.name, declared.documentation, declared.type)
