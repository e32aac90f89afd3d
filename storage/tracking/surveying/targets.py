"""What all surveys need: how many replicas chunks should have, and registers that are folded to one size."""

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

SOON = timedelta(seconds=5)  # After the call of ``leaving``, the sketches are read within this time.


def targets() -> NDArray[np.int64]:
    """The numbers of chunks that should have 0, 1, 2, … replicas. If there is no chunk, all numbers up to that of the
    default factor are 0.

    Condemned chunks are included, because they keep their copies until they are reclaimed. A chunk of two contents
    counts twice. If there are several targets, to count a chunk twice makes the lower bound of ``Survey.below_target``
    smaller, which is safe.
    """
    chunks = Counter(Content.chunks_by_target()) + Counter(Chunk.objects.condemned_by_factor())
    del chunks[0]
    if not chunks:
        chunks[configuration().replication_factor] = 0
    histogram = np.zeros(max(chunks) + 1, np.int64)
    histogram[list(chunks)] = list(chunks.values())
    return histogram


def under_ingest() -> int:
    """The number of pinned chunks, which may not have all copies yet.

    Call this function after the sketches are read: an ingest pins a chunk before it counts the chunk's copies.
    """
    return Pin.objects.values("chunk").distinct().count()


def leaving() -> int:
    """The number of condemned chunks that may have any number of copies: orphans, and chunks that reclaim may remove.

    Call this function before the sketches are read. Then the number includes a chunk whose row is deleted before
    ``targets`` is called. Because of ``SOON``, the number also includes a chunk that becomes due, and is removed,
    before the sketches are read.
    """
    due = Q(condemned_at__lt=Now() - timedelta(seconds=configuration().reclaim_grace) + SOON)
    return Chunk.objects.filter(due | Q(condemned_factor=0), condemned_at__isnull=False).count()


def lined_up(sketches: Sequence[LCRS], n_prime: int) -> Registers:
    """The registers of all sketches, folded to the size of the smallest one, shape ``[nodes, N']``.

    Args:
        sketches: the sketches, one for each node.
        n_prime: N' of the result if there are no sketches.
    """
    smallest = min((sketch.n_prime for sketch in sketches), default=n_prime)
    folded = [sketch.fold(smallest).registers for sketch in sketches]
    return np.stack(folded) if folded else np.zeros((0, smallest), np.uint8)
