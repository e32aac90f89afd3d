"""A simulated cluster: the answers of its sketches are compared with the truth.

Operators start with ``python -m sketches.simulate --help``. The register of a chunk is drawn uniformly at random,
because hashing spreads real chunks over the registers in the same way. The nodes of a chunk are drawn as weighted
rendezvous hashing chooses them. The package needs NumPy and mmh3; only the plots also need matplotlib.
"""
