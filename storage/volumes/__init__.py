from storage.volumes.addresses import open_volume
from storage.volumes.base import GENERATIONS, MANY, Identity, Replica, Space, Trashed, Volume
from storage.volumes.directory import DirectoryVolume
from storage.volumes.filesystem import FilesystemVolume
from storage.volumes.lane import Lane
from storage.volumes.memory import MemoryVolume
from storage.volumes.packs import PackVolume, Totals

__all__ = [
    "GENERATIONS",
    "MANY",
    "DirectoryVolume",
    "FilesystemVolume",
    "Identity",
    "Lane",
    "MemoryVolume",
    "PackVolume",
    "Replica",
    "Space",
    "Totals",
    "Trashed",
    "Volume",
    "open_volume",
]
