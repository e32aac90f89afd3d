"""The posterior probability that a node holds a chunk, given the registers that the chunk falls into.

A node holds n chunks in N' registers. If the node holds the chunk, the chunk's register counts this chunk and a
binomial share of the n - 1 other chunks; if not, the register counts a binomial share of all n chunks. The ratio of
these two likelihoods of a value v is exactly ``v N' / n``, the value over the load (derived here:
``Bin(v - 1; n - 1, 1/N') / Bin(v; n, 1/N')``). A register at tau stands for the mean of the values it may have. A chunk
that was never counted does not change the likelihood of the other chunks. If a share ``loss`` of the chunks held was
never counted, the ratio is ``(1 - loss) v N' / n + loss``.

The registers of one chunk on all nodes together tell more about the chunk than each of them alone. The sum of one
chunk's registers over all nodes is the number of replicas of all chunks that fall into them, and so tells the number K
of these chunks. If a node counts v of the K chunks, two likelihoods are compared: if the node holds the chunk in
question, and if not. The ratio of the two likelihoods is ``v/(K - v) (1 - b)/b``, with b the share of all chunks that
the node holds (derived here: again two binomials, of K - 1 others). If nothing is known of the placement, the
probability is ``v/K``. A chunk that is alone in its register is on the nodes where the register is not zero.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sketches.registers import checked_values

Floats: TypeAlias = NDArray[np.float64]

CERTAIN = 1e-3
"""Prior probabilities and shares are kept at least this far from 0 and 1, so registers can prove them wrong."""

OPEN = 5e-3
"""Among nodes whose registers do not decide, the expected share of holders is kept this far from 0 and 1."""

SCALING_STEPS = 6
FLATTEST = 0.02
LONGEST_STEP = 4.0
"""The most by which one step changes the logarithm of the factor that scales the odds."""

TAIL_TERMS = 256
"""Terms of the series for the mean of a saturated register. Above loads of about 100, the mean is taken as the load."""


@dataclass(frozen=True)
class Candidates:
    """The nodes on which to look for chunks.

    Attributes:
        probabilities: probability that a node holds a chunk, in [0, 1], float64 ``[chunks, nodes]``.
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
    """Find the posterior probability that nodes hold chunks, for each node by itself.

    The result is exact if n is exact. A wrong n hardly changes the order, and readers need only the order. Saturated
    registers stick, so after many removals they stand for fewer chunks than the estimate assumes.

    Args:
        values: the registers that chunks fall into, shape ``[chunks, nodes]``.
        chunks_per_node: n, shape ``[nodes]``. If a register counts more chunks than n, its value takes the place of n.
        n_prime: N', one size for all sketches, or a size for each: shape ``[nodes]``.
        tau: the level at which a register saturates.
        prior: probability before the registers are read, such as RF/m, or more for the nodes that placement prefers;
            broadcasts to ``[chunks, nodes]``.
        loss: share of a node's chunks that its sketch may lack, shape ``[nodes]`` or one for all. 0: the sketch is
            trusted, and an empty register proves absence, whatever the prior. Above 0: the sketch is not trusted, and
            the result is only certain if the prior is; an empty register divides the odds by ``1 / loss``. 1: there is
            no sketch, and the result is the prior.

    Raises:
        ValueError: a prior or loss is not in [0, 1], there are no registers, a number of chunks is negative, or a value
            is not an integer from 0 to tau.
    """
    values = checked_values(values, tau)
    held, size = np.asarray(chunks_per_node, np.float64), np.asarray(n_prime, np.float64)
    before, lost = np.broadcast_to(np.asarray(prior, np.float64), values.shape), np.asarray(loss, np.float64)
    if not all(((share >= 0) & (share <= 1)).all() for share in (before, lost)):
        raise ValueError("a prior or a loss is not in [0, 1]")
    if (size < 1).any() or (held < 0).any():
        raise ValueError("a sketch has at least one register, and a node at least 0 chunks")
    counted = np.where(values == tau, _saturated_mean(held / size, tau), values)
    ratio = (1 - lost) * counted * size / np.maximum(np.maximum(held, counted), 1.0) + lost
    present = before * ratio
    either = present + (1 - before)
    probabilities = np.divide(present, either, out=np.zeros(values.shape), where=either > 0)
    return Candidates(probabilities, np.lexsort((-before, -probabilities), axis=-1))


def holders(
    values: NDArray[np.uint8],
    replicas: ArrayLike,
    chunks_per_node: ArrayLike,
    mean_replicas: float,
    n_prime: ArrayLike,
    tau: int,
    prior: ArrayLike,
    loss: ArrayLike,
) -> Candidates:
    """Find the probability that nodes hold chunks, from the registers of all nodes together.

    The odds follow from how many chunks share a register (see above). The odds are scaled, by one factor for each
    chunk, until the probabilities add up to the number of replicas that the chunk still has. If the registers
    count fewer replicas than their chunks should have, this number is less than ``replicas``: the lack is divided
    equally among these chunks. The sum of a register over the nodes is not known if a sketch is not trusted, if
    sketches differ in size, or if a register of the chunk is saturated. If the sum is not known, each node is judged by
    itself, by `candidates`.

    Simulations of fresh, grown, drained and mixed clusters of 5 and 8 nodes, at loads of .05, .25 and 1, each with
    prior probabilities of .9 for the nodes that placement prefers, give a mean squared error of .016 on average (with
    `candidates` .049, and with ``v r / sum of v`` .037). Of the answers with a certainty of .99, 99.7 % were right at
    loads up to .25, in the worst cluster, and 98.9 % at a load of 1 (with `candidates`, 92 % and 85 %). With a lower
    prior, fewer of the certain answers are wrong, but less is known about clusters where every replica is where
    placement would put it.

    Args:
        values: the registers that chunks fall into, of all m nodes, shape ``[chunks, nodes]``.
        replicas: how many replicas each chunk should have, at least 1; shape ``[chunks]`` or one for all.
        chunks_per_node: n, shape ``[nodes]``.
        mean_replicas: mean number of replicas of all chunks, at least 1: the sum of n over the number of chunks.
        n_prime: as for `candidates`.
        tau: as for `candidates`.
        prior: as for `candidates`. 0 and 1 are not taken as certain.
        loss: as for `candidates`.

    Returns:
        Probabilities and order. A node with a zero register in a trusted sketch has probability 0.

    Raises:
        ValueError: a number of replicas is less than 1, or a value is not an integer from 0 to tau; where each node is
            judged by itself, as by `candidates`.
    """
    values = checked_values(values, tau)
    wanted, lost, size = np.asarray(replicas, np.float64), np.asarray(loss), np.asarray(n_prime)
    if mean_replicas < 1 or (wanted < 1).any():
        raise ValueError("a chunk has at least one replica")
    before = np.broadcast_to(np.asarray(prior, np.float64), values.shape)
    if not values.size or lost.any() or (size.ndim and size.min() != size.max()):
        return candidates(values, chunks_per_node, n_prime, tau, before, loss)
    known = values.max(axis=1) < tau
    if not known.all():
        alone = candidates(values, chunks_per_node, n_prime, tau, before, loss).probabilities
    held = np.asarray(chunks_per_node, np.float64)
    share = np.clip(held * (mean_replicas / max(held.sum(), 1.0)), CERTAIN, 1 - CERTAIN)
    likely = np.clip(before, CERTAIN, 1 - CERTAIN)
    odds = likely / (1 - likely) * ((1 - share) / share)
    probabilities = _shared_out(values.astype(np.float64), odds, wanted, mean_replicas)
    if not known.all():
        probabilities[~known] = alone[~known]
    return Candidates(probabilities, np.lexsort((-before, -probabilities), axis=-1))


def _shared_out(counted: Floats, odds: Floats, wanted: Floats, mean_replicas: float) -> Floats:
    """Return probabilities that add up to the replicas of each chunk, unless registers alone decide them.

    Args:
        counted: registers, float64 ``[chunks, nodes]``.
        odds: the factor of each node's odds that does not depend on its register, ``[chunks, nodes]``.
        wanted: replicas that each chunk should have, ``[chunks]`` or one for all.
        mean_replicas: mean number of replicas of the other chunks.
    """
    total, most = counted.sum(axis=1), counted.max(axis=1)
    chunks = np.maximum(1 + (total - wanted) / mean_replicas, most)
    sharing = chunks[:, None]
    # If the registers count fewer replicas than their chunks should have, each of these chunks is assumed to lack an
    # equal part of the missing replicas.
    replicas = wanted - np.maximum(wanted + (chunks - 1) * mean_replicas - total, 0.0) / np.maximum(chunks, 1.0)
    by_all = (counted > 0) & (counted == sharing)
    probabilities: Floats = by_all.astype(np.float64)
    some = (counted > 0) & ~by_all
    rows = np.flatnonzero(some.any(axis=1))
    if not len(rows):
        return probabilities
    counted, some = counted[rows], some[rows]
    weight = np.where(some, odds[rows] * counted / np.where(some, sharing[rows] - counted, 1.0), 0.0)
    places = some.sum(axis=1)
    left = replicas[rows] - by_all[rows].sum(axis=1)
    left = np.clip(left, OPEN * places, (1 - OPEN) * places)
    middle = np.log(np.where(some, weight, 1.0)).sum(axis=1) / places
    weight *= (left / (places - left) * np.exp(-middle))[:, None]
    found = weight / (1 + weight)
    for _ in range(SCALING_STEPS):
        slope = np.maximum((found * (1 - found)).sum(axis=1), FLATTEST)
        step = np.clip((left - found.sum(axis=1)) / slope, -LONGEST_STEP, LONGEST_STEP)
        weight *= np.exp(step)[:, None]
        found = weight / (1 + weight)
    probabilities[rows] += found
    return probabilities


def false_positive_rate(chunks_per_node: ArrayLike, n_prime: ArrayLike) -> Floats:
    """The probability that a node's register is not zero for a chunk that it does not hold: ``1 - (1 - 1/N')^n``.

    Args:
        chunks_per_node: n, at least 0, any shape.
        n_prime: N', at least 1, of a shape that broadcasts with ``chunks_per_node``.

    Returns:
        float64 in [0, 1].
    """
    return np.asarray(1 - (1 - 1 / np.asarray(n_prime, np.float64)) ** np.asarray(chunks_per_node, np.float64))


def _saturated_mean(load: Floats, tau: int) -> Floats:
    """The mean of a Poisson variable known to be at least tau: load + tau / sum of load^j tau! / (tau + j)! over j."""
    with np.errstate(over="ignore"):
        terms = np.cumprod(load[..., None] / (tau + np.arange(1, TAIL_TERMS)), axis=-1)
        return np.asarray(load + tau / (1 + terms.sum(axis=-1)))
