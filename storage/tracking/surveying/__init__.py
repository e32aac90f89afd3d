"""What the sketches of the online nodes say about the whole cluster, each figure with its interval.

``surveys`` reads the sketches. ``overlaps`` compares the chunks that two nodes share with the number that they should
share. ``gathering`` finds the sets of nodes with which chunks would be lost. ``drawing`` makes sketches of a planned
state.
"""

from storage.tracking.surveying.drawing import Drawing
from storage.tracking.surveying.gathering import GATHERED_FOR, Gathering
from storage.tracking.surveying.overlaps import Overlap, largest_z
from storage.tracking.surveying.surveys import LARGE, Survey, is_large, survey

__all__ = ["GATHERED_FOR", "LARGE", "Drawing", "Gathering", "Overlap", "Survey", "is_large", "largest_z", "survey"]
