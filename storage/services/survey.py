"""Survey the sketches now and then: keep what is too large to compute for every request, let them grow in time, and
have losses traced that they prove."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.utils import timezone

from storage import counters
from storage.cluster.topology import Topology
from storage.counters import Event
from storage.jobs import maintenance
from storage.models import Cluster, Job, LastSurvey, Tally, clock
from storage.models.clock import Clock
from storage.tracking import proof, surveying
from storage.tracking.proof import Evidence
from storage.tracking.store import StoreUnavailable
from storage.tracking.surveying import GATHERED_FOR, Survey

log = structlog.get_logger(__name__)

SHOWN = 3  # So many pairs of nodes are logged.
GROWTH_LOAD = 0.25  # chunks per register from which the next size is due
PAUSE = timedelta(hours=1)  # before a trace looks again into what the last one could not mend
AT_WORK = (Job.Kind.TRACE, Job.Kind.REPAIR_ALL, Job.Kind.DRAIN)

_before: Evidence | None = None
_told_of: datetime | None = None  # since when copies have been gathered, if this process has said so


def survey() -> None:
    """One round."""
    topology = Topology.load()
    try:
        found = surveying.survey(topology)
        if found is None:
            return
        _seek_losses(topology, found)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        return
    if surveying.is_large(topology):
        LastSurvey.keep(timezone.now(), found.as_json())
    if found.trusted:
        _watch_gatherings(topology, found)
    _grow(found)


def _watch_gatherings(topology: Topology, found: Survey) -> None:
    """Note since when copies have gathered on few nodes; a rebalance that is queued or runs is about to mend it."""
    global _told_of
    if not all(member.counts for member in topology.members):
        return  # Copies are where they should not be for long.
    since = topology.cluster.gathered_since
    gathered = [one for one in found.gatherings if one.is_out_of_bounds]
    if not (gathered or found.overlapping) or Job.objects.open().filter(kind=Job.Kind.REBALANCE_ALL).exists():
        if since is not None:
            Cluster.objects.update(gathered_since=None)
            log.info("copies.spread_again")
        return
    if since is None:
        Cluster.objects.filter(gathered_since=None).update(gathered_since=Clock())
    elif since < clock.now() - GATHERED_FOR and since != _told_of:
        _told_of = since
        counters.add(Event.GATHERINGS_FOUND)
        sets = [{"nodes": one.node_ids, "chunks": round(one.chunks.estimate)} for one in gathered]
        log.warning("copies.gathered", since=since.isoformat(), sets=sets, pairs=found.overlapping[:SHOWN])


def _grow(found: Survey) -> None:
    wanted = found.n_prime
    while found.union.lower_bound > GROWTH_LOAD * wanted:
        wanted *= 2
    if wanted > found.n_prime and Cluster.grow(wanted):
        log.info("cluster.sketches_grow", n_prime=wanted, load=round(found.load, 3))


def _seek_losses(topology: Topology, found: Survey) -> None:
    """Have losses traced that two surveys, one after the other, have seen in the same registers.

    What one look has seen half done, such as a removal, is done by the next one. A rebuild of a node that loses copies
    meanwhile may leave counts of copies that have gone, and such counts look like losses: the trace tells them apart.
    """
    global _before
    before, _before = _before, None
    if not found.trusted or not proof.is_possible(topology):
        return
    on_record = Tally.totals(Tally.What.CHUNKS).get(0, 0)
    if not proof.is_suspect(found, proof.smallest_target(topology), on_record):
        return
    if Job.objects.open().filter(kind__in=AT_WORK).exists():
        return  # Such a job mends losses by itself, or moves copies by the thousand.
    _before = evidence = proof.find(topology)
    if evidence is None or before is None:
        return
    registers, lost = _news(evidence.and_of(before))
    if registers or lost:
        _before = None
        job = maintenance.ensure(Job.Kind.TRACE, "cluster")
        log.info("losses.suspected", job=str(job.pk), registers=registers, lost=lost)


def _news(evidence: Evidence) -> tuple[int, int]:
    """Registers that are too low, and chunks without a trace, beyond what the last trace could not mend."""
    last = Job.objects.last_of(Job.Kind.TRACE)
    result = (last.result or {}) if last else {}
    if last is None or not result.get("complete"):
        return len(evidence.low), int(evidence.lost)
    lately = Job.objects.filter(pk=last.pk, finished_at__range=(Clock() - PAUSE, Clock())).exists()
    known = {*result["registers"]} if lately and evidence.n_prime == result["n_prime"] else set()
    if lately and result["remaining"] > len(result["registers"]):
        return 0, 0  # too many of them to tell what is new
    low = len({*evidence.low.tolist()} - known) if known else len(evidence.low)
    return low, max(0, int(evidence.lost) - result["lost"])
