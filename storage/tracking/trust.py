"""Checks that tell which sketches can be trusted, and which have to be rebuilt."""

from __future__ import annotations

from enum import StrEnum

from sketches.estimators.drift import Comparison, compare, disagreement, needs_rebuild
from sketches.store import trusted
from storage.cluster.topology import Member, Topology
from storage.models import Cluster, Node
from storage.tracking.store import store_of

LOST_COUNTS = 16  # The sum of the registers may be this much below the node's tally: removals may be under way.
SURPLUS_COUNTS = 1024  # The sum may exceed the tally by this plus a hundredth of the tally: batches may be in flight.
DRIFT_SCORE = 6.0  # Chance does not reach this score. With a lower limit, rebuilds would often change nothing.


class Reason(StrEnum):
    """Why a sketch has to be rebuilt. Only the reasons in ``ENDS_TRUST`` end trust in the sketch."""

    MISSING = "missing"  # The sketch is missing or damaged, or was made for another N_PRIME.
    STALE = "stale"  # A count may have been lost: a writer could not count, or Redis restarted.
    SIZE = "size"  # The cluster's N' or TAU has changed since the sketch was made.
    WORN = "worn"  # Too many registers are stuck at TAU.
    DRIFTED = "drifted"  # The sketch contradicts itself or the node's tally.
    LISTED = "listed"  # An audit or a reconcile has just compared the node, and has mended what was wrong.


ENDS_TRUST = (Reason.MISSING, Reason.STALE)


def outdated(topology: Topology) -> dict[str, Reason]:
    """The online nodes whose sketches have to be rebuilt, as far as headers tell. Only headers are read, and
    the header of a large sketch is as short as the header of a small sketch.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    lookup = store_of(topology.cluster).lookup([member.node_id for member in topology.online], [])
    reasons = {}
    for member in topology.online:
        header = lookup.headers[member.node_id]
        if header is None:
            reasons[member.node_id] = Reason.MISSING
        elif not trusted(header, member.sketch_epoch, lookup.run_id):
            reasons[member.node_id] = Reason.STALE
        elif (header.n_prime, header.tau) != (topology.cluster.n_prime, topology.cluster.tau):
            reasons[member.node_id] = Reason.SIZE
    return reasons


def untrusted(topology: Topology) -> list[Member]:
    """The online nodes whose sketches cannot be trusted: missing or stale.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    reasons = outdated(topology)
    return [member for member in topology.online if reasons.get(member.node_id) in ENDS_TRUST]


def inspect(topology: Topology, member: Member) -> Reason | None:
    """Read a node's whole sketch, N' bytes; return why it has to be rebuilt (WORN or DRIFTED), or None.

    The result is None if the sketch is good or does not exist.

    The sum of the registers should equal the node's tally. Batches in flight and failed writes make the sum larger than
    the tally. Removals under way make the sum a little smaller. If the sum is far smaller than the tally, counts were
    lost, and each lost count may become a false negative. The tally is read before the sketch, in ``member``, and again
    after the sketch. The sum is compared with the tally only if the two readings of the tally are equal.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    sketch = store_of(topology.cluster).snapshot([member.node_id]).sketches.get(member.node_id)
    if sketch is None:
        return None
    tally = Node.objects.get(node_id=member.node_id).chunks
    drift = disagreement(sketch)
    if needs_rebuild(int(sketch.stuck(tally)), sketch.n_prime):
        return Reason.WORN
    lost = 0 if drift.saturated else tally - drift.counted
    surplus = drift.counted - tally
    contradicts = tally == member.stored_chunks and (lost > LOST_COUNTS or surplus > SURPLUS_COUNTS + tally // 100)
    return Reason.DRIFTED if contradicts or abs(drift.score) > DRIFT_SCORE else None


def compare_with_shadow(cluster: Cluster, node_id: str, build: bytes) -> Comparison | None:
    """Compare a node's sketch in use with the shadow that will replace it; returns None if no sketch is in use.

    Sketches with different N' or TAU are both folded to the smaller N' and TAU, and then compared.

    Raises:
        ShadowLost: the shadow is missing, damaged or of another build.
        StoreUnavailable: Redis does not answer.
    """
    in_use, listed = store_of(cluster).side_by_side(node_id, build)
    if in_use is None:
        return None
    n_prime, tau = min(in_use.n_prime, listed.n_prime), min(in_use.tau, listed.tau)
    return compare(in_use.fold(n_prime).capped(tau), listed.fold(n_prime).capped(tau))
