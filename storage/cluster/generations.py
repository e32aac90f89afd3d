"""Volumes know how new the database was under which they were written to, so that an older one is recognised (ADR 18).

A generation is a span of about a minute. It is committed in PostgreSQL, then given to every volume, and only then is
anything written there in it. A database that was put back does not know the generations that followed its copy: volumes
that carry one of them hold copies that it has never heard of, and it may neither condemn nor reclaim anything.

No clock is compared with another: a volume's generation is known to a database, or it is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog
from django.db import transaction

from storage import counters
from storage.cluster import topology
from storage.cluster.topology import Member, Topology
from storage.counters import Event
from storage.exceptions import ForeignDatabase, VolumeError
from storage.models import Generation, Job, Node
from storage.models.locks import Lock, advisory_lock
from storage.volumes import GENERATIONS, MANY, Identity

log = structlog.get_logger(__name__)

SPAN = timedelta(seconds=60)
GOOD_SECONDS = 60.0  # A writer does not look again for so long: it writes in a generation of two minutes at most.

T = TypeVar("T")

_good_until = 0.0  # The volumes need no look before this time of the monotonic clock.


def before_writing(seen: Topology) -> None:
    """Called by whoever is about to write copies: makes sure that the volumes carry a generation of this minute or so.

    The database's copies that were made earlier will then be recognised as older than what is written now.
    """
    global _good_until
    if time.monotonic() < _good_until and all(member.generation for member in seen.accepting):
        return
    until = time.monotonic() + GOOD_SECONDS
    keep_up(seen)
    _good_until = until


def keep_up(seen: Topology) -> None:
    """Begin the next generation if the last one is a minute old, and give it to the volumes that do not carry it yet.

    It is called every few seconds, so that what was written last in a generation is followed by the next one.
    """
    with _one_at_a_time():
        current = _current()
        _give(current, [member for member in seen.online if member.generation < current.pk])


def begin(seen: Topology) -> None:
    """Begin a generation, however young the last one is: called when the cluster starts, and when it stops.

    What was written last before a stop, or before a crash, is so followed by another generation. A copy of the database
    that was made while it was written is recognised, even if it is put back before the minute is over.
    """
    with _one_at_a_time():
        _give(Generation.begin(), seen.online)


def look(members: Iterable[Member]) -> dict[Member, Identity]:
    """What the volumes that answer, and are the right ones, carry."""
    found = _side_by_side(members, lambda member: member.lane.volume.identity)
    return {member: identity for member, identity in found.items() if identity.same_volume(member.identity)}


def strangers(found: Mapping[Member, Identity]) -> list[Member]:
    """The members whose volumes carry a generation that this database does not know.

    They are looked at twice: an identity file that is overwritten in place, as on a full disk, may be read half done.
    """
    suspects = _unknown(found)
    return list(_unknown(look(suspects))) if suspects else []


def require_known(members: Iterable[Member]) -> None:
    """Make sure that this database is not older than what the volumes hold: called before anything is condemned.

    Raises:
        ForeignDatabase: some volume was written to under a database that this one does not know.
    """
    if unknown := strangers(look(members)):
        raise ForeignDatabase(
            f"{', '.join(member.node_id for member in unknown)} was written to under another or a later database: "
            "see `manage.py adopt`"
        )


def recognise(seen: Topology) -> list[str]:
    """Record which volumes this database does not know the generations of; the ids of their nodes."""
    found = look(seen.members)
    unknown = [member.node_id for member in strangers(found)]
    asked = [member.node_id for member in found]
    fresh = Node.objects.filter(node_id__in=unknown, foreign_writes=False).update(foreign_writes=True)
    Node.objects.filter(node_id__in=asked, foreign_writes=True).exclude(node_id__in=unknown).update(
        foreign_writes=False
    )
    if fresh:
        log.error("database.older", nodes=unknown)
    return unknown


def adopt(seen: Topology, members: Sequence[Member]) -> list[str]:
    """Have volumes forget the generations that this database does not know; the ids of those that could be told."""
    with _one_at_a_time():
        current = _current()
        told = _set(dict.fromkeys(members, (current.name,)))
        Node.objects.filter(node_id__in=told).update(generation=current.pk, foreign_writes=False)
    topology.forget()
    return told


def _current() -> Generation:
    """The generation of this minute; one that is older is over."""
    return Generation.current(SPAN) or Generation.begin()


def _give(current: Generation, members: Sequence[Member]) -> None:
    """Replace the generations that this database knows by the current one, and leave the others where they are."""
    if not members:
        return
    found = look(members)
    known = Generation.known(name for identity in found.values() for name in identity.generations)
    wanted, behind = {}, []
    for member, identity in found.items():
        foreign = tuple(name for name in identity.generations if name not in known)
        wanted[member] = (*(foreign if len(foreign) < GENERATIONS else (MANY,)), current.name)
        # The other database has replaced the generation that this one had left there.
        if not foreign and max(map(known.__getitem__, identity.generations), default=0) < member.generation:
            behind.append(member)
    _report_behind(behind)
    told = _set(wanted)
    Node.objects.filter(node_id__in=told).update(generation=current.pk)
    topology.forget()


def _report_behind(members: Sequence[Member]) -> None:
    """A volume is older than it was left, such as a snapshot that was put back: see what it lacks, and what is back."""
    for member in members:
        # This is committed before the volume is given the current generation, which would hide it.
        with transaction.atomic():
            Node.distrust_sketches([member.node_id])
            Job.ensure(Job.Kind.RECONCILE, member.node_id)
        counters.add(Event.VOLUMES_BEHIND)
        log.warning("volume.behind", node=member.node_id, generation=member.generation)


def _set(wanted: Mapping[Member, tuple[str, ...]]) -> list[str]:
    """Write generations to volumes; the ids of the nodes that have them now."""
    told = _side_by_side(wanted, lambda member: partial(member.lane.volume.set_generations, wanted[member]))
    return [member.node_id for member in told]


def _unknown(found: Mapping[Member, Identity]) -> list[Member]:
    known = Generation.known({name for identity in found.values() for name in identity.generations})
    return [member for member, identity in found.items() if not known.keys() >= set(identity.generations)]


def _side_by_side(members: Iterable[Member], verb: Callable[[Member], Callable[[], T]]) -> dict[Member, T]:
    """Call a verb of each volume; the answers of those that answer."""
    asked, answers = [], {}
    for member in members:
        try:
            asked.append((member, member.lane.submit(verb(member))))
        except VolumeError as error:
            log.info("volume.unasked", node=member.node_id, error=str(error))
    for member, future in asked:
        try:
            answers[member] = member.lane.result(future)
        except VolumeError as error:
            log.warning("volume.silent", node=member.node_id, error=str(error))
    return answers


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two processes that gave volumes two generations might leave the older one there, as if a snapshot were back."""
    with advisory_lock(Lock.GIVING):
        yield
