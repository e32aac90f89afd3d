"""Estimates of numbers of chunks from the registers of several sketches, each with an interval or a bound."""

from sketches.estimators.confinement import spectrum_from_levels, spectrum_from_registers
from sketches.estimators.estimate import Estimate
from sketches.estimators.redundancy import alarming, average_replication, below_targets, lost_chunks, proven_below
from sketches.estimators.spectrum import Spectrum
from sketches.estimators.sums import spectrum_from_sums
from sketches.estimators.union import union_estimate

__all__ = [
    "Estimate",
    "Spectrum",
    "alarming",
    "average_replication",
    "below_targets",
    "lost_chunks",
    "proven_below",
    "spectrum_from_levels",
    "spectrum_from_registers",
    "spectrum_from_sums",
    "union_estimate",
]
