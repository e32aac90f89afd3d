"""A simulated cluster: the answers of its sketches are compared with the truth.

Operators start with ``python -m sketches.simulate --help``. Chunks are hashed by drawing their registers uniformly at
random, as a hash of digests does, and are placed as weighted rendezvous hashing places them. The package needs NumPy
and mmh3; only the plots also need matplotlib.
"""
