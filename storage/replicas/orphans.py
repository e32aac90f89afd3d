"""Copies whose chunks have no row in the database: their row was deleted, or this database never had one."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from storage import counters
from storage.cluster import generations
from storage.cluster.topology import Topology
from storage.counters import Event
from storage.exceptions import ForeignDatabase
from storage.models import Chunk

log = structlog.get_logger(__name__)


def condemn(topology: Topology, sizes: Mapping[str, int]) -> int:
    """Begin the grace period of orphans, unless this database may be older than the orphans (RACES 12).

    Args:
        topology: the nodes.
        sizes: chunk hash → size in bytes of the copies found.

    Returns:
        How many chunks were condemned just now.
    """
    if not sizes:
        return 0
    try:
        generations.require_known(topology.members)
    except ForeignDatabase as error:
        log.warning("orphans.kept", chunks=len(sizes), error=str(error))
        return 0
    condemned = Chunk.objects.condemn_orphans(sizes)
    counters.add(Event.ORPHANS_FOUND, condemned)
    return condemned
