"""The checks of file systems, volumes and staging."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from occsite.doctor.findings import Finding, ok, problem, warning
from storage.cluster import admission, generations
from storage.cluster.topology import Member, Topology
from storage.conf import configuration
from storage.exceptions import VolumeError
from storage.models import Upload
from storage.models.refusals import UNAVAILABLE
from storage.plans import size
from storage.staging import files
from storage.volumes import DirectoryVolume, Space
from storage.volumes.base import HEADROOM

LOW = 4 * HEADROOM
LOW_SHARE = 0.05
SYNCS = 9
IMPLAUSIBLE = 20e-6  # seconds: no medium is that fast, so the bytes are in memory only
FORGOTTEN = 600.0  # seconds; a running maintenance program removes a staged file without an upload within a minute


@dataclass
class FileSystem:
    """A file system: its room, the parts of the installation that lie on it, and a directory there."""

    space: Space
    folder: Path
    parts: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        return ", ".join(self.parts)


def room_is_left() -> Iterator[Finding]:
    for system in _file_systems():
        space = system.space
        free = f"{size(space.free)} of {size(space.total)} are free below {system.words}"
        if space.is_full:
            lack = "inodes" if space.lack == "files" else "space"
            yield problem(f"no {lack} is left: {free}", "make room, or move to a larger disk")
        elif space.free < LOW or space.free < LOW_SHARE * space.total:
            yield warning(f"little is left: {free}", "make room before uploads are refused")
        else:
            yield ok(free)


def fsync_waits() -> Iterator[Finding]:
    for system in _file_systems():
        try:
            seconds = _time_of_fsync(system.folder)
        except OSError as error:
            yield problem(f"{system.words}: {error.strerror}", "make the folder writable for the user of the service")
            continue
        words = f"an fsync below {system.words} takes {seconds * 1e6:.0f} µs"
        if seconds < IMPLAUSIBLE:
            yield warning(f"{words}: it waits for no medium", "use a disk: a power cut loses what lies in memory")
        else:
            yield ok(words)


def _time_of_fsync(folder: Path) -> float:
    """The median time in seconds of an fsync of 4 KiB in a file that has no name."""
    times = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(os.urandom(4096))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return median(times)


def _file_systems() -> list[FileSystem]:
    """The file systems of STORAGE_DIR, of staging, and of the volumes that are there."""
    conf = configuration()
    parts = {"STORAGE_DIR": conf.storage_dir, "staging": conf.staging_dir}
    parts |= {member.node_id: root for member in _members() if (root := _root(member)) and _carries(member)}
    found: dict[int, FileSystem] = {}
    for name, folder in parts.items():
        try:
            device, statistics = folder.stat().st_dev, os.statvfs(folder)
        except OSError:
            continue  # The checks of volumes and staging say what is wrong with this directory.
        space = Space.of(statistics, str(device), writable=True)
        found.setdefault(device, FileSystem(space, folder)).parts.append(name)
    return list(found.values())


def volumes_are_ours() -> Iterator[Finding]:
    topology = Topology.load()
    good = []
    for member in topology.members:
        try:
            found = member.lane.look(member.lane.volume.identity)
        except VolumeError as error:
            yield problem(
                f"{member.node_id} does not answer: {error}",
                "mount its disk, or see `manage.py retire` if the disk is dead",
            )
            continue
        if found.cluster != member.identity.cluster:
            yield problem(
                f"{member.node_id} has the volume of another cluster ({found.cluster})",
                "put the right disk in its place, or correct DATABASE_URL",
            )
        elif not found.same_volume(member.identity):
            yield problem(f"{member.node_id} has the volume of {found.node_id}", "put the right disk in its place")
        else:
            good.append(member)
    if newer := [member.node_id for member in generations.strangers(generations.look(good))]:
        yield problem(
            f"{', '.join(newer)} were written to under a newer database, or another: nothing is removed",
            "put the newer database back, or see `manage.py adopt --dry-run`",
        )
    elif len(good) == len(topology.members):
        yield ok(f"all {len(good)} nodes answer, and their volumes belong to this database")


def staging_is_in_order() -> Iterator[Finding]:
    if lack := admission.staging_lack():
        yield problem(lack, "make room, or mend the folder: no upload can be received")
        return
    folder = configuration().staging_dir
    staged = files.present()
    orphans = staged - set(Upload.objects.values_list("id", flat=True))
    old = [upload_id for upload_id in orphans if _age(folder / str(upload_id)) > FORGOTTEN]
    strangers = [entry.name for entry in folder.iterdir() if entry.name not in {str(each) for each in staged}]
    if old:
        yield warning(
            f"{len(old)} files in staging belong to no upload", "see that the maintenance program runs: it removes them"
        )
    if strangers:
        yield warning(f"staging holds other files: {', '.join(sorted(strangers)[:3])}", "move them away")
    if not old and not strangers:
        yield ok(f"{len(staged)} uploads are in staging, and nothing else")


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _members() -> tuple[Member, ...]:
    """The nodes; no nodes if PostgreSQL does not answer."""
    try:
        return Topology.load().members
    except UNAVAILABLE:
        return ()


def _root(member: Member) -> Path | None:
    volume = member.lane.volume
    return volume.root if isinstance(volume, DirectoryVolume) else None


def _carries(member: Member) -> bool:
    try:
        return member.lane.look(member.lane.volume.identity).same_volume(member.identity)
    except VolumeError:
        return False
