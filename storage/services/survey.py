"""Survey the sketches now and then: keep what is too large to compute for every request, and let them grow in time."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.utils import timezone

from storage import counters, surveying
from storage.counters import Event
from storage.models import Cluster, Job, LastSurvey, clock
from storage.models.clock import Clock
from storage.routing import StoreUnavailable
from storage.surveying import Survey
from storage.topology import Topology

log = structlog.get_logger(__name__)

_told: dict[datetime, bool] = {}  # since when copies are gathered, if this process has said so

GATHERED_FOR = timedelta(hours=1)  # Uploads, repairs and nodes that come and go make passing patterns.
SHOWN = 3  # So many pairs of nodes are logged.
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
    if found.trusted:
        _watch_gatherings(topology, found)
    _grow(found)


def _watch_gatherings(topology: Topology, found: Survey) -> None:
    """Note since when copies have gathered on few nodes; a rebalance that is queued or runs is about to mend it."""
    since = topology.cluster.gathered_since
    gathered = [one for one in found.gatherings if one.is_out_of_bounds]
    if not (gathered or found.overlapping) or Job.objects.open().filter(kind=Job.Kind.REBALANCE_ALL).exists():
        if since is not None:
            Cluster.objects.update(gathered_since=None)
            log.info("copies.spread_again")
        return
    if since is None:
        Cluster.objects.filter(gathered_since=None).update(gathered_since=Clock())
    elif since < clock.now() - GATHERED_FOR and _told.get(since) is None:
        _told.clear()
        _told[since] = True
        counters.add(Event.GATHERINGS_FOUND)
        sets = [{"nodes": one.node_ids, "chunks": round(one.chunks.estimate)} for one in gathered]
        log.warning("copies.gathered", since=since.isoformat(), sets=sets, pairs=found.overlapping[:SHOWN])


def _grow(found: Survey) -> None:
    wanted = found.n_prime
    while found.union.lower_bound > GROWTH_LOAD * wanted:
        wanted *= 2
    if wanted > found.n_prime and Cluster.grow(wanted):
        log.info("cluster.sketches_grow", n_prime=wanted, load=round(found.load, 3))
