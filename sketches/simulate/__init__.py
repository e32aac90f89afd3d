"""A cluster of random numbers: what the sketches would answer, held against the truth.

``python -m sketches.simulate --help`` is the operator's door. Chunks are hashed by drawing their registers uniformly at
random, which is what a hash of digests does, and placed as weighted rendezvous hashing places them. Beyond NumPy and
mmh3 only the plots need anything: matplotlib.
"""
