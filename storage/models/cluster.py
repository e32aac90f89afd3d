from __future__ import annotations

import secrets
import uuid

from django.db import models, transaction
from django.db.models import F

from storage.conf import LARGEST_SKETCH


def draw_seed() -> int:
    return secrets.randbits(32)


class Cluster(models.Model):
    """The single row of values that must outlive Redis.

    Processes read these values here, not in the environment (RACES 22).
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    uuid = models.UUIDField(default=uuid.uuid4, editable=False)
    sketch_seed = models.BigIntegerField(default=draw_seed, editable=False, help_text="salts the registers")
    base_n_prime = models.BigIntegerField(help_text="N_PRIME")
    n_prime = models.BigIntegerField(help_text="registers per sketch now: N_PRIME times a power of two")
    tau = models.PositiveSmallIntegerField(help_text="a register saturates here")
    num_nodes = models.PositiveIntegerField(help_text="nodes that are not retired")
    asked_nodes = models.PositiveIntegerField(help_text="NUM_NODES at the last start")
    topology_epoch = models.BigIntegerField(default=0, help_text="raised when a node changes state")
    rebalanced_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="what was stored earlier lies where placement puts it",
    )
    gathered_since = models.DateTimeField(
        null=True, editable=False, help_text="since when surveys find copies gathered on few nodes"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "cluster"  # The table has one row.
        constraints = (models.CheckConstraint(condition=models.Q(id=1), name="cluster_is_single"),)

    def __str__(self) -> str:
        return str(self.uuid)

    @classmethod
    def load(cls) -> Cluster:
        return cls.objects.get(id=1)

    @classmethod
    def grow(cls, n_prime: int) -> bool:
        """Raise the number of registers per sketch; the probe then has the sketches rebuilt, one after the other.

        The number never falls, so this function may be called twice, late, or by several processes at once. Until its
        rebuild, a sketch of the former size is used as before, and is trusted.

        Args:
            n_prime: ``base_n_prime`` times a power of two. The number of registers is halved until it is at most
                ``LARGEST_SKETCH``.

        Returns:
            True if the number of registers per sketch was raised.

        Raises:
            ValueError: sketches of this size would not fold onto sketches of the base size.
        """
        with transaction.atomic():
            cluster = cls.objects.select_for_update().get(id=1)
            factor, rest = divmod(n_prime, cluster.base_n_prime)
            if rest or factor < 1 or factor & (factor - 1):
                raise ValueError(f"{n_prime} registers are not {cluster.base_n_prime} times a power of two")
            while n_prime > LARGEST_SKETCH:
                n_prime //= 2
            if n_prime <= cluster.n_prime:
                return False
            cluster.n_prime = n_prime
            cluster.save(update_fields=["n_prime"])
            return True

    @classmethod
    def bump_topology(cls) -> None:
        """Record that a node changed state: older health summaries are estimates from now on."""
        cls.objects.update(topology_epoch=F("topology_epoch") + 1)
