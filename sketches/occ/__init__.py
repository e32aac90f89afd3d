"""Overlapping cardinality computation: what independent random sets have in common, by chance alone.

Each of ``m`` parties holds a uniformly random subset of a population of ``N`` elements; party ``i`` holds exactly
``n_i`` of them and the parties draw independently. How many elements does anyone hold (the union), everyone (the
intersection), exactly ``k`` of them, and how alike are the sets? Combinatorics knows this as the committee problem
(Johnson and Kotz, *Urn Models and Their Application*, 1977).

Everything follows from adding one party at a time. The elements that nobody holds yet, E of N, lose those that the
newcomer draws, and what remains is hypergeometric given E. Hence

* the union is a Markov chain, and the law of total variance gives moments that are sums of positive terms;
* the intersection is what the union of the complements leaves: ``I(n_1 … n_m) = N - U(N - n_1 … N - n_m)``;
* the number of missed elements is distributed as a sum of independent Bernoulli variables, although there are none in
  sight (Vatutin and Mikhailov, *Theory of Probability and its Applications* 27, 1982): a newcomer of n turns its
  generating function ``Π(z + r_i)`` into the coefficient of ``s^n`` in ``Π((1 + r_i)s + z + r_i)``, which is a stable
  polynomial, so that all zeros stay real. Hence Bernstein's inequality bounds the tails, and the normal approximation
  of union and intersection is off by at most ``0.56/sd`` in distribution (Berry-Esseen, constant of Shevtsova, 2010).

Conventions: the union of no sets is empty and their intersection is the whole population, as complements demand;
empty sets are equal, so that their Jaccard index is 1. The joint distributions of union and intersection and of the
classes "held by exactly k" are not offered, as their state grows with N² and faster: use the exact moments.
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
