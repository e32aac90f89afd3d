"""Volumes of packs: many replicas in one file, and one wait for the disk for all replicas that a call writes.

``records`` is the format, ``codecs`` makes chunks smaller, ``pack_file`` works on one pack, ``index`` says where
records lie, ``recovery`` brings the index in line with the packs, ``handle`` is what a process has open, and ``volume``
has the verbs. See ADR 29.
"""

from storage.volumes.packs.index import Totals
from storage.volumes.packs.pack_file import can_punch_holes
from storage.volumes.packs.volume import PackVolume

__all__ = ["PackVolume", "Totals", "can_punch_holes"]
