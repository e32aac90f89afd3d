"""Overlapping cardinality computation: what independent random sets have in common, by chance alone.

Each of ``m`` parties holds a uniformly random subset of a population of ``N`` elements; party ``i`` holds exactly
``n_i`` of them and the parties draw independently. How many elements does at least one party hold (the union), how many
do all parties hold (the intersection), how many do exactly ``k`` parties hold, and how similar are the sets? In
combinatorics, these questions are the committee problem (Johnson and Kotz, *Urn Models and Their Application*, 1977).

All results follow from adding one party at a time. Let E of the N elements be missed: no party holds them yet. The next
party, the newcomer, draws some of these E elements, and the number that remains is hypergeometric given E. Therefore:

* The union is a Markov chain, and the law of total variance gives moments that are sums of positive terms.
* The intersection is the complement of the union of the complements: ``I(n_1 … n_m) = N - U(N - n_1 … N - n_m)``.
* The number of missed elements is distributed as a sum of independent Bernoulli variables (Vatutin and Mikhailov,
  *Theory of Probability and its Applications* 27, 1982). Proof: a newcomer of n elements turns the generating function
  ``Π(z + r_i)`` of the number of missed elements into the coefficient of ``s^n`` in ``Π((1 + r_i)s + z + r_i)``. The
  new generating function is a stable polynomial, so all zeros stay real. Bernstein's inequality therefore bounds the
  tails, and the normal approximation of union and intersection is off by at most ``0.56/sd`` in distribution
  (Berry-Esseen, constant of Shevtsova, 2010).

Conventions: without any set, the union is empty and the intersection is the whole population, as the rule for
complements requires. Empty sets are equal, so their Jaccard index is 1. The joint distributions of union and
intersection and of the classes "held by exactly k" are not offered, because their state grows with N² and faster: use
the exact moments.
"""

from sketches.occ.distribution import Distribution, intersection_pmf, union_pmf
from sketches.occ.exactly import HeldByExactly, held_by_exactly
from sketches.occ.jaccard import jaccard
from sketches.occ.moments import Moments, intersection, union, union_intersection_covariance

__all__ = [
    "Distribution",
    "HeldByExactly",
    "Moments",
    "held_by_exactly",
    "intersection",
    "intersection_pmf",
    "jaccard",
    "union",
    "union_intersection_covariance",
    "union_pmf",
]
