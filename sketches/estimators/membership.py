"""Which nodes hold a chunk: the posterior probability, given the registers the chunk falls into.

A node holds n chunks in N' registers. If the chunk is among them, its register counts it and a binomial share of the
n - 1 others; if not, one of all n. The ratio of these two likelihoods of a value v is exactly ``v N' / n``, the value
over the load (derived here: ``Bin(v - 1; n - 1, 1/N') / Bin(v; n, 1/N')``). A register at tau stands for the mean of
the values it may have. A chunk that was never counted leaves the likelihood of the others alone: if that happens to a
share ``loss`` of the chunks held, the ratio is ``(1 - loss) v N' / n + loss``.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

TAIL_TERMS = 256
"""Of the series for the mean of a saturated register: enough up to loads of 100, and beyond them it is the load."""


@dataclass(frozen=True)
class Candidates:
    """Where to look for chunks.

    Attributes:
        probabilities: that a node holds a chunk, in [0, 1], float64 ``[chunks, nodes]``.
        order: the nodes of each chunk, most probable first, then by prior, then by index; int64 ``[chunks, nodes]``.
    """

    probabilities: Floats
    order: NDArray[np.int64]


def candidates(
    values: NDArray[np.uint8],
    chunks_per_node: ArrayLike,
    n_prime: ArrayLike,
    tau: int,
    prior: ArrayLike,
    loss: ArrayLike,
) -> Candidates:
    """Find the posterior probability that nodes hold chunks, each node for itself.

    Exact when n is; a misjudged n hardly changes the order, which is what reading needs. Saturated registers stick, so
    that after many removals they stand for fewer chunks than is assumed here.

    Args:
        values: the registers that chunks fall into, shape ``[chunks, nodes]``.
        chunks_per_node: n, shape ``[nodes]``; taken as no fewer than a register counts.
        n_prime: N', registers of all the sketches, or of each: shape ``[nodes]``.
        tau: the level at which a register saturates.
        prior: probability before looking, such as RF/m, or more for the nodes that placement prefers; broadcasts to
            ``[chunks, nodes]``.
        loss: share of a node's chunks that its sketch may lack, shape ``[nodes]`` or one for all. 0: it is trusted, and
            an empty register proves absence, whatever the prior. Above 0: it is not, and nothing is certain unless the
            prior is; an empty register divides the odds by ``1 / loss``. 1: there is no sketch, and the prior remains.

    Raises:
        ValueError: a prior or loss is not in [0, 1], no registers, a negative number of chunks, a value above tau.
    """
    held, size = np.asarray(chunks_per_node, np.float64), np.asarray(n_prime, np.float64)
    before, lost = np.broadcast_to(np.asarray(prior, np.float64), values.shape), np.asarray(loss, np.float64)
    if not all(((share >= 0) & (share <= 1)).all() for share in (before, lost)):
        raise ValueError("a prior or a loss is not in [0, 1]")
    if (size < 1).any() or (held < 0).any() or (values > tau).any():
        raise ValueError("a sketch has registers of 0 to tau, and a node at least 0 chunks")
    counted = np.where(values == tau, _saturated_mean(held / size, tau), values)
    ratio = (1 - lost) * counted * size / np.maximum(np.maximum(held, counted), 1.0) + lost
    present = before * ratio
    either = present + (1 - before)
    probabilities = np.divide(present, either, out=np.zeros(values.shape), where=either > 0)
    return Candidates(probabilities, np.lexsort((-before, -probabilities), axis=-1))


def false_positive_rate(chunks_per_node: ArrayLike, n_prime: ArrayLike) -> Floats:
    """The probability that the register of a chunk a node does not hold is not zero: ``1 - (1 - 1/N')^n``.

    Args:
        chunks_per_node: n, at least 0, any shape.
        n_prime: N', at least 1, of a shape that broadcasts with it.

    Returns:
        float64 in [0, 1].
    """
    return np.asarray(1 - (1 - 1 / np.asarray(n_prime, np.float64)) ** np.asarray(chunks_per_node, np.float64))


def _saturated_mean(load: Floats, tau: int) -> Floats:
    """The mean of a Poisson variable known to be at least tau: load + tau / sum of load^j tau! / (tau + j)! over j."""
    with np.errstate(over="ignore"):
        terms = np.cumprod(load[..., None] / (tau + np.arange(1, TAIL_TERMS)), axis=-1)
        return np.asarray(load + tau / (1 + terms.sum(axis=-1)))
