"""Generations: volumes remember the database that last wrote to them, so an older database is recognised (ADR 18).

A generation is a span of about a minute in the life of a database. A generation is first committed in PostgreSQL, then
written to every volume. Copies are written only after all volumes carry the generation. Suppose that the database is
replaced by an older backup: it does not know the generations that began after the backup. A volume that carries a later
generation holds copies that the older database has never heard of. So a database that does not know a volume's
generation may neither condemn nor reclaim anything.

No clock is compared with another clock: a database knows a volume's generation, or it does not.
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
from storage.cluster.topology import Member, Topology
from storage.cluster.topology import forget as forget_topology
from storage.counters import Event
from storage.exceptions import ForeignDatabase, VolumeError
from storage.models import Generation, Job, Node
from storage.models.locks import Lock, advisory_lock
from storage.volumes import GENERATIONS, MANY, Identity

log = structlog.get_logger(__name__)

SPAN = timedelta(seconds=60)
GOOD_SECONDS = 60.0  # A writer looks at the volumes after this time, so their generation is at most 2 minutes old.

T = TypeVar("T")

_good_until = 0.0  # The volumes need no look before this time on the monotonic clock.


def before_writing(topology: Topology) -> None:
    """Before copies are written, make sure that the volumes carry a generation of at most about two minutes.

    A backup of the database that was made before this generation began is recognised as older than copies that are
    written now.
    """
    global _good_until
    if time.monotonic() < _good_until and all(member.generation for member in topology.accepting):
        return
    until = time.monotonic() + GOOD_SECONDS
    keep_up(topology)
    _good_until = until


def keep_up(topology: Topology) -> None:
    """Begin the next generation if the last one is a minute old, and give it to the volumes that do not carry it yet.

    The probe calls this function every few seconds, so that after the last write in a generation the next generation
    soon begins.
    """
    with _one_at_a_time():
        current = _current()
        _give(current, [member for member in topology.online if member.generation < current.pk])


def begin(topology: Topology) -> None:
    """Begin a generation, however young the last one is: called when the cluster starts, and when it stops.

    So a new generation follows the last copies that were written before a stop or a crash. A backup of the database
    that was made during the last writes is recognised as older, even if it is put back before the minute is over.
    """
    with _one_at_a_time():
        _give(Generation.begin(), topology.online)


def look(members: Iterable[Member]) -> dict[Member, Identity]:
    """Read the identity of each volume; volumes that do not answer, or carry another identity, are left out."""
    identities = _side_by_side(members, lambda member: member.lane.volume.identity)
    return {member: identity for member, identity in identities.items() if identity.same_volume(member.identity)}


def strangers(identities: Mapping[Member, Identity]) -> list[Member]:
    """The members whose volumes carry a generation that this database does not know.

    A volume with an unknown generation is looked at twice: on a full disk the identity file is overwritten in place,
    and the first look may have read a file that was half overwritten.
    """
    suspects = _unknown(identities)
    return list(_unknown(look(suspects))) if suspects else []


def require_known(members: Iterable[Member]) -> None:
    """Make sure that this database is not older than the copies on the volumes: called before anything is condemned.

    Raises:
        ForeignDatabase: a volume carries a generation that this database does not know.
    """
    if unknown := strangers(look(members)):
        raise ForeignDatabase(
            f"{', '.join(member.node_id for member in unknown)} was written to under another or a later database: "
            "see `manage.py adopt`"
        )


def recognise(topology: Topology) -> list[str]:
    """Record which volumes carry a generation that this database does not know; returns the ids of their nodes."""
    identities = look(topology.members)
    unknown = [member.node_id for member in strangers(identities)]
    node_ids = [member.node_id for member in identities]
    fresh = Node.objects.filter(node_id__in=unknown, foreign_writes=False).update(foreign_writes=True)
    Node.objects.filter(node_id__in=node_ids, foreign_writes=True).exclude(node_id__in=unknown).update(
        foreign_writes=False
    )
    if fresh:
        log.error("database.older", nodes=unknown)
    return unknown


def adopt(topology: Topology, members: Sequence[Member]) -> list[str]:
    """Make volumes carry this database's generation alone; returns the ids of the nodes where this succeeded."""
    with _one_at_a_time():
        current = _current()
        node_ids = _set(dict.fromkeys(members, (current.name,)))
        Node.objects.filter(node_id__in=node_ids).update(generation=current.pk, foreign_writes=False)
    forget_topology()
    return node_ids


def _current() -> Generation:
    """The last generation if it is less than a minute old; otherwise a new one."""
    return Generation.current(SPAN) or Generation.begin()


def _give(current: Generation, members: Sequence[Member]) -> None:
    """On each volume, replace the generations that this database knows by the current one. Unknown generations stay."""
    if not members:
        return
    identities = look(members)
    numbers = Generation.known(name for identity in identities.values() for name in identity.generations)
    names, behind = {}, []
    for member, identity in identities.items():
        foreign = tuple(name for name in identity.generations if name not in numbers)
        names[member] = (*(foreign if len(foreign) < GENERATIONS else (MANY,)), current.name)
        # A foreign generation shows that another database has replaced this database's generation on the volume. Such a
        # volume need not be an old snapshot, so it is not reported as one.
        if not foreign and max(map(numbers.__getitem__, identity.generations), default=0) < member.generation:
            behind.append(member)
    _report_behind(behind)
    node_ids = _set(names)
    Node.objects.filter(node_id__in=node_ids).update(generation=current.pk)
    forget_topology()


def _report_behind(members: Sequence[Member]) -> None:
    """Queue a reconcile of volumes that are older than this database left them, such as restored snapshots.

    An older volume may lack copies, and may have copies that were removed since.
    """
    for member in members:
        # The job is committed before the volume gets the current generation, which would hide that the volume is older.
        with transaction.atomic():
            Node.distrust_sketches([member.node_id])
            Job.ensure(Job.Kind.RECONCILE, member.node_id)
        counters.add(Event.VOLUMES_BEHIND)
        log.warning("volume.behind", node=member.node_id, generation=member.generation)


def _set(names: Mapping[Member, tuple[str, ...]]) -> list[str]:
    """Write generations to volumes; returns the ids of the nodes whose volumes have them now."""
    answers = _side_by_side(names, lambda member: partial(member.lane.volume.set_generations, names[member]))
    return [member.node_id for member in answers]


def _unknown(identities: Mapping[Member, Identity]) -> list[Member]:
    numbers = Generation.known({name for identity in identities.values() for name in identity.generations})
    return [member for member, identity in identities.items() if not numbers.keys() >= set(identity.generations)]


def _side_by_side(members: Iterable[Member], verb: Callable[[Member], Callable[[], T]]) -> dict[Member, T]:
    """Call a verb of the members' volumes at the same time; returns the answers of the volumes that answer."""
    calls, answers = [], {}
    for member in members:
        try:
            calls.append((member, member.lane.submit(verb(member))))
        except VolumeError as error:
            log.info("volume.unasked", node=member.node_id, error=str(error))
    for member, future in calls:
        try:
            answers[member] = member.lane.result(future)
        except VolumeError as error:
            log.warning("volume.silent", node=member.node_id, error=str(error))
    return answers


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let only one process at a time give generations to volumes in a ``with`` block.

    Two processes at once might leave the older of two generations on a volume, which would look like an old snapshot.
    """
    with advisory_lock(Lock.GIVING):
        yield
