"""Functions that run in the system under test through ``manage.py shell``, and print state that no client can see.

Each rule is a function that returns a list of everything that breaks the rule. A sound system at rest breaks no rule.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from django.db.models import Count, Q, Sum

from storage.accounts import quotas
from storage.cluster.topology import Member, Topology
from storage.conf import configuration
from storage.models import Chunk, Content, File, Hold, Job, Object, Part, Upload, Usage, clock
from storage.models.clock import Clock
from storage.replicas.removing import trashed_at
from storage.services import audit, drain, provision, reclaim, repair
from storage.tracking import trust
from storage.tracking.store import StoreUnavailable, store_of
from storage.volumes import DirectoryVolume
from tests.support.packs import good_copies_in, trashed_in


def print_findings(limit: float) -> None:
    """Wait until no work is left, for at most ``limit`` seconds. Print when the wait ended, and all findings.

    The end of the wait is a time of the monotonic clock, which all processes of a machine share.
    """
    deadline = time.monotonic() + limit
    while any(left := [rule() for rule in WORK.values()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    rested = time.monotonic()
    findings = dict(zip(WORK, left, strict=True)) | {name: rule() for name, rule in STATE.items()}
    json.dump({"rested": rested, "findings": findings}, sys.stdout)


def reclaim_until(stop: str) -> None:
    """Reclaim without a grace period again and again until the file ``stop`` exists. Print how much was reclaimed."""
    removed = forgotten = purged = 0
    while not Path(stop).exists():
        outcome = reclaim.reclaim(0)
        removed += outcome.removed
        forgotten += outcome.forgotten
        purged += outcome.purged
    json.dump({"removed": removed, "forgotten": forgotten, "purged": purged}, sys.stdout)


def print_jobs() -> None:
    """Print how many jobs of each kind there have been, except the jobs of uploads."""
    kinds = Job.objects.exclude(queue="ingest").values_list("kind").annotate(number=Count("id")).order_by()
    json.dump(dict(kinds), sys.stdout)


# -- what an operator can ask for -----------------------------------------


def print_hold() -> None:
    """Print for how many seconds reclaim is still held back."""
    end = Hold.last_end()
    print((end - clock.now()).total_seconds() if end else 0)


def audit_node(node_id: str) -> None:
    audit.request(node_id)


def take_census() -> None:
    audit.request_census()


def rebuild_sketch(node_id: str) -> None:
    """Queue a rebuild, and print the id of its job."""
    sys.stdout.write(str(Job.ensure(Job.Kind.REBUILD_SKETCH, node_id).pk))


def repair_cluster() -> None:
    repair.request_all()


def drain_fullest() -> None:
    """Queue the drain of the node with the most bytes. A drained node is retired."""
    drain.request(max(Topology.load().accepting, key=lambda member: member.stored_bytes).node_id)


def add_node() -> None:
    provision.add()


# -- work that must come to an end -----------------------------------------


def open_jobs() -> list[str]:
    jobs = Job.objects.exclude(state__in=Job.TERMINAL)
    return [
        f"{job.kind} {job.pk}: {job.state}, {job.attempts} attempts, {job.waiting_for or job.error}" for job in jobs
    ]


def uploads_under_way() -> list[str]:
    """List all uploads, except those whose job has failed: such uploads are kept until an operator decides."""
    uploads = Upload.objects.exclude(jobs__state=Job.State.FAILED)
    return [f"{upload.pk}: {upload.state}, {upload.pins.count()} pins" for upload in uploads]


def staged() -> list[str]:
    failed = Upload.objects.filter(jobs__state=Job.State.FAILED).values_list("id", flat=True)
    kept = {str(upload_id) for upload_id in failed}
    return sorted(path.name for path in configuration().staging_dir.iterdir() if path.name not in kept)


def untrusted_sketches() -> list[str]:
    try:
        return [member.node_id for member in trust.untrusted(Topology.load())]
    except StoreUnavailable as error:
        return [repr(error)]


def short_of_good_copies() -> list[str]:
    """List chunks of manifests with too few good copies.

    A chunk needs as many good copies as its target says, or one on each node whose copies count if there are fewer such
    nodes.
    """
    counting = len(_counting())
    return [
        f"{chunk_hash}: {len(good)} of {target}"
        for chunk_hash, (target, good) in _good_copies().items()
        if len(good) < min(target, counting)
    ]


def surplus_copies() -> list[str]:
    """List chunks of manifests with more good copies than their target."""
    return [
        f"{chunk_hash}: {len(good)} of {target}"
        for chunk_hash, (target, good) in _good_copies().items()
        if len(good) > target
    ]


def not_reclaimed() -> list[str]:
    """List condemned chunks and copies in the trash whose grace period is over.

    The list is empty while a node does not answer, because reclaim then keeps the rows of condemned chunks.
    """
    seen, grace = Topology.load(), configuration().reclaim_grace
    if len(seen.online) < len(seen.members):
        return []
    condemned = Chunk.objects.filter(condemned_at__lt=Clock() - timedelta(seconds=grace))
    now = clock.now().timestamp()
    trash = [name for member in seen.members for name in _trashed(_root(member))]
    overdue = [name for name in trash if trashed_at(name.partition("~")[2]) < now - grace]
    return [*map(str, condemned), *overdue]


def _root(member: Member) -> Path:
    volume = member.lane.volume
    assert isinstance(volume, DirectoryVolume)
    return volume.root


def _trashed(root: Path) -> list[str]:
    return [f"{name}~{token}" for name, token in trashed_in(root)] or [path.name for path in root.glob("trash/*")]


def _counting() -> list[Member]:
    return [member for member in Topology.load().members if member.counts]


def _good_copies() -> dict[str, tuple[int, list[str]]]:
    """Map each chunk hash to the chunk's target and to the nodes that hold a good copy and whose copies count.

    The copies are read from the disks directly, without the code under test.
    """
    used = dict(Chunk.objects.filter(entries__isnull=False).distinct().values_list("hash", "id"))
    targets = Chunk.objects.targets(used.values())
    found: dict[str, tuple[int, list[str]]] = {h: (targets[chunk_id], []) for h, chunk_id in used.items()}
    for member in _counting():
        root = _root(member)
        good = [path.name for path in root.glob("chunks/??/*") if path.name in found and _is_good(path)]
        for name in (*good, *good_copies_in(root)):
            if name in found:
                found[name][1].append(member.node_id)
    return found


def _is_good(path: Path) -> bool:
    try:
        status = path.stat()
        return _digest(path, status.st_ino, status.st_ctime_ns) == path.name
    except OSError:
        return False


@cache
def _digest(path: Path, inode: int, change_time: int) -> str:
    """Hash a file. The cache reads each file once: the same inode with the same change time has the same bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- state that must be sound ----------------------------------------------


def false_negatives() -> list[str]:
    """List replicas that are on a volume although their register is zero. At rest every sketch is trusted."""
    seen = Topology.load()
    missed = []
    for member in seen.members:
        hashes = [replica.chunk_hash for replica in member.lane.volume.replicas()]
        counts = store_of(seen.cluster).lookup([member.node_id], hashes).counts[0]
        empty = [chunk_hash for chunk_hash, count in zip(hashes, counts, strict=True) if not count]
        there = member.lane.volume.sizes(empty)  # A copy may have been removed and un-counted since it was listed.
        missed += [f"{member.node_id} {h}" for h, size in zip(empty, there, strict=True) if size is not None]
    return missed


def contents_that_nobody_finishes() -> list[str]:
    """List contents that are not ready and have no upload that could still make them ready."""
    return [str(content) for content in Content.objects.exclude(state=Content.State.READY).filter(uploads=None)]


def condemned_though_used() -> list[str]:
    used = Q(entries__isnull=False) | Q(pins__isnull=False)
    return [str(chunk) for chunk in Chunk.objects.filter(used, condemned_at__isnull=False).distinct()]


def never_reclaimed() -> list[str]:
    """List chunks that nothing refers to and that are not condemned: reclaim will not look at them."""
    unused = Chunk.objects.filter(condemned_at__isnull=True, entries__isnull=True, pins__isnull=True)
    return [str(chunk) for chunk in unused]


def contents_that_nothing_refers_to() -> list[str]:
    return [str(content) for content in Content.objects.filter(files=None, parts=None)]


def usage_unlike_the_rows() -> list[str]:
    """List owners whose tallies differ from a count of their files, objects and parts: quotas rely on the tallies."""
    files, sizes = Counter[int](), Counter[int]()
    for owner, number, size in File.objects.order_by().values_list("owner").annotate(Count("pk"), Sum("size")):
        files[owner] += number
        sizes[owner] += size
    for owner, number in Object.objects.order_by().values_list("bucket__owner").annotate(Count("pk")):
        files[owner] += number
    for owner, size in Part.objects.order_by().values_list("bucket__owner").annotate(Sum("size")):
        sizes[owner] += size
    rows = {owner: Usage(files[owner], sizes[owner]) for owner in {*files, *sizes}}
    rows = {owner: used for owner, used in rows.items() if used != Usage(0, 0)}
    tallied = {account.owner.pk: account.used for account in quotas.accounts() if account.used != Usage(0, 0)}
    owners = sorted(rows.keys() | tallied.keys())
    return [
        f"{owner}: {tallied.get(owner)}, not {rows.get(owner)}"
        for owner in owners
        if rows.get(owner) != tallied.get(owner)
    ]


Rule = Callable[[], Any]

WORK: dict[str, Rule] = {
    "jobs not terminal": open_jobs,
    "uploads not ended": uploads_under_way,
    "staging not empty": staged,
    "sketches not trusted": untrusted_sketches,
    "chunks short of good copies": short_of_good_copies,
    "chunks with surplus copies": surplus_copies,
    "not reclaimed": not_reclaimed,
}
STATE: dict[str, Rule] = {
    "false negatives": false_negatives,
    "contents half there": contents_that_nobody_finishes,
    "chunks condemned though used": condemned_though_used,
    "chunks never reclaimed": never_reclaimed,
    "contents that nothing refers to": contents_that_nothing_refers_to,
    "usage of quotas not right": usage_unlike_the_rows,
}
