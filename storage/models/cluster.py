from __future__ import annotations

import secrets
import uuid

from django.db import models
from django.db.models import F


def draw_seed() -> int:
    return secrets.randbits(32)


class Cluster(models.Model):
    """The single row that keeps what must outlive Redis. Processes read it, never the environment (RACES 22)."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    uuid = models.UUIDField(default=uuid.uuid4, editable=False)
    sketch_seed = models.BigIntegerField(default=draw_seed, editable=False, help_text="salts the registers")
    base_n_prime = models.BigIntegerField(help_text="N_PRIME")
    n_prime = models.BigIntegerField(help_text="registers per sketch now: N_PRIME times a power of two")
    tau = models.PositiveSmallIntegerField(help_text="a register saturates here")
    num_nodes = models.PositiveIntegerField(help_text="NUM_NODES at the last start")
    generation = models.BigIntegerField(default=0, help_text="raised by every reclaim pass; volumes carry a copy")
    topology_epoch = models.BigIntegerField(default=0, help_text="raised when a node changes state")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(id=1), name="cluster_is_single"),)

    def __str__(self) -> str:
        return str(self.uuid)

    @classmethod
    def load(cls) -> Cluster:
        return cls.objects.get(id=1)

    @classmethod
    def bump_topology(cls) -> None:
        """Say that a node changed state: older health summaries are estimates from now on."""
        cls.objects.update(topology_epoch=F("topology_epoch") + 1)

    @classmethod
    def next_generation(cls) -> int:
        """Raise the generation and return it; committed before a volume is told (RACES 12)."""
        cls.objects.update(generation=F("generation") + 1)
        return cls.load().generation
