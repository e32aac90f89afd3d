"""What surveys have in common: how many replicas chunks should have, and registers of one size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from django.db.models import Q
from django.db.models.functions import Now
from numpy.typing import NDArray

from sketches.lcrs import LCRS
from storage.conf import configuration
from storage.models import Chunk, Content, Pin
from storage.tracking.surveying.overlaps import Registers


def targets() -> NDArray[np.int64]:
    """How many chunks should have 0, 1, 2, … replicas; of a cluster without any, none at the default.

    Condemned chunks keep their copies until they are reclaimed, and so are among them. A chunk of two contents counts
    in both: with several targets the lower bound that follows is on the safe side.
    """
    chunks = Counter(Content.chunks_by_target()) + Counter(Chunk.objects.condemned_by_factor())
    del chunks[0]
    if not chunks:
        chunks[configuration().replication_factor] = 0
    histogram = np.zeros(max(chunks) + 1, np.int64)
    histogram[list(chunks)] = list(chunks.values())
    return histogram


def under_ingest() -> int:
    """Chunks that may lack copies yet. This is asked after the sketches are read: a pin precedes what it counts."""
    return Pin.objects.values("chunk").distinct().count()


def leaving() -> int:
    """Condemned chunks that may have any number of copies: orphans, and those that reclaim may be removing.

    This is asked before the sketches are read: what is forgotten before ``targets`` is asked is still among these.
    """
    due = Q(condemned_at__lt=Now() - timedelta(seconds=configuration().reclaim_grace))
    return Chunk.objects.filter(due | Q(condemned_factor=0), condemned_at__isnull=False).count()


def lined_up(sketches: Sequence[LCRS], n_prime: int) -> Registers:
    """The registers of all sketches, folded to the size of the smallest: ``[nodes, N']``."""
    smallest = min((sketch.n_prime for sketch in sketches), default=n_prime)
    folded = [sketch.fold(smallest).registers for sketch in sketches]
    return np.stack(folded) if folded else np.zeros((0, smallest), np.uint8)
