"""Survey the sketches regularly: keep results that are too costly to compute for every request, let the sketches grow
before they are full, and queue a trace when the sketches prove losses.
"""

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

SHOWN = 3  # The warning ``copies.gathered`` names at most this many pairs of nodes.
GROWTH_LOAD = 0.25  # Above this load, in chunks per register, the sketches grow to the next size.
PAUSE = timedelta(hours=1)  # For this long, no trace is queued for the registers that the last trace could not mend.
AT_WORK = (Job.Kind.TRACE, Job.Kind.REPAIR_ALL, Job.Kind.DRAIN)

_before: Evidence | None = None
_told_of: datetime | None = None  # ``gathered_since`` of the gathering that this process has logged last.


def survey() -> None:
    """Make one survey, and act on it."""
    topology = Topology.load()
    try:
        figures = surveying.survey(topology)
        if figures is None:
            return
        _seek_losses(topology, figures)
    except StoreUnavailable as error:
        log.warning("sketch.unavailable", error=str(error))
        return
    LastSurvey.keep(timezone.now(), figures.as_json())
    if figures.trusted:
        _watch_gatherings(topology, figures)
    _grow(figures)


def _watch_gatherings(topology: Topology, figures: Survey) -> None:
    """Record since when copies have gathered on few nodes, and log it after ``GATHERED_FOR``.

    While a rebalance of the cluster is queued or running, nothing is recorded: the rebalance will spread the copies.
    """
    global _told_of
    if not all(member.counts for member in topology.members):
        return  # While a node is offline or draining, copies are on other nodes for a time.
    since = topology.cluster.gathered_since
    gatherings = [one for one in figures.gatherings if one.is_out_of_bounds]
    if not (gatherings or figures.overlapping) or Job.objects.open().filter(kind=Job.Kind.REBALANCE_ALL).exists():
        if since is not None:
            Cluster.objects.update(gathered_since=None)
            log.info("copies.spread_again")
        return
    if since is None:
        Cluster.objects.filter(gathered_since=None).update(gathered_since=Clock())
    elif since < clock.now() - GATHERED_FOR and since != _told_of:
        _told_of = since
        counters.add(Event.GATHERINGS_FOUND)
        sets = [{"nodes": one.node_ids, "chunks": round(one.chunks.estimate)} for one in gatherings]
        log.warning("copies.gathered", since=since.isoformat(), sets=sets, pairs=figures.overlapping[:SHOWN])


def _grow(figures: Survey) -> None:
    n_prime = figures.n_prime
    while figures.union.lower_bound > GROWTH_LOAD * n_prime:
        n_prime *= 2
    if n_prime > figures.n_prime and Cluster.grow(n_prime):
        log.info("cluster.sketches_grow", n_prime=n_prime, load=round(figures.load, 3))


def _seek_losses(topology: Topology, figures: Survey) -> None:
    """Queue a trace of the losses that two consecutive surveys have seen in the same registers.

    Work that one survey sees half done, such as a removal, is finished by the next survey. If a node loses copies
    during a rebuild of its sketch, the sketch may keep counts of copies that have gone. Counts of copies that have gone
    look like losses of other copies, and only the trace tells the two apart.
    """
    global _before
    before, _before = _before, None
    if not figures.trusted or not proof.is_possible(topology):
        return
    on_record = Tally.totals(Tally.What.CHUNKS).get(0, 0)
    if not proof.is_suspect(figures, proof.smallest_target(topology), on_record):
        return
    if Job.objects.open().filter(kind__in=AT_WORK).exists():
        return  # A job whose kind is in AT_WORK mends losses itself, or moves thousands of copies.
    _before = evidence = proof.find(topology)
    if evidence is None or before is None:
        return
    registers, lost = _news(evidence.and_of(before))
    if registers or lost:
        _before = None
        job = maintenance.ensure(Job.Kind.TRACE, "cluster")
        log.info("losses.suspected", job=str(job.pk), registers=registers, lost=lost)


def _news(evidence: Evidence) -> tuple[int, int]:
    """Count the registers that are too low and the chunks on no node.

    Registers and chunks that the last trace could not mend are not counted.
    """
    last = Job.objects.last_of(Job.Kind.TRACE)
    result = (last.result or {}) if last else {}
    if last is None or not result.get("complete"):
        return len(evidence.low), int(evidence.lost)
    lately = Job.objects.filter(pk=last.pk, finished_at__range=(Clock() - PAUSE, Clock())).exists()
    registers = {*result["registers"]} if lately and evidence.n_prime == result["n_prime"] else set()
    if lately and result["remaining"] > len(result["registers"]):
        return 0, 0  # The last trace left more registers than its result names, so new registers cannot be recognised.
    low = len({*evidence.low.tolist()} - registers) if registers else len(evidence.low)
    return low, max(0, int(evidence.lost) - result["lost"])
