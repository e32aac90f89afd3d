"""Survey the sketches now and then: keep what is too large to compute for every request, and let them grow in time."""

from __future__ import annotations

import structlog
from django.utils import timezone

from storage import surveying
from storage.models import Cluster, LastSurvey
from storage.routing import StoreUnavailable
from storage.surveying import Survey
from storage.topology import Topology

log = structlog.get_logger(__name__)

GROWTH_LOAD = 0.25  # chunks per register from which the next size is due


def survey() -> None:
    """One round."""
    topology = Topology.load()
    try:
        found = surveying.survey(topology)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        return
    if found is None:
        return
    if surveying.is_large(topology):
        LastSurvey.keep(timezone.now(), found.as_json())
    _grow(found)


def _grow(found: Survey) -> None:
    wanted = found.n_prime
    while found.union.lower_bound > GROWTH_LOAD * wanted:
        wanted *= 2
    if wanted > found.n_prime and Cluster.grow(wanted):
        log.info("cluster.sketches_grow", n_prime=wanted, load=round(found.load, 3))
