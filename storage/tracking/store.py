"""The sketches of the cluster, in Redis."""

from __future__ import annotations

from functools import lru_cache

from sketches.estimators import Estimate
from sketches.exceptions import ShadowLost, SketchError, StoreUnavailable
from sketches.store import SketchStore
from sketches.wire import HEADER_SIZE
from storage.models import Cluster
from storage.redis_connection import connect


@lru_cache(maxsize=4)
def _store(namespace: str, seed: int, base_n_prime: int, tau: int) -> SketchStore:
    return SketchStore(connect(), namespace, seed=seed, base_n_prime=base_n_prime, tau=tau)


def sketch_size(n_prime: int) -> int:
    """The bytes that a sketch of ``n_prime`` registers takes in Redis."""
    return HEADER_SIZE + n_prime


def store_of(cluster: Cluster) -> SketchStore:
    return _store(f"occ:{cluster.uuid}", cluster.sketch_seed, cluster.base_n_prime, cluster.tau)


__all__ = ["Estimate", "ShadowLost", "SketchError", "StoreUnavailable", "sketch_size", "store_of"]
