"""Sizes, times and states as people read them. All functions are pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

MIB = 1 << 20
UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")
STEP = 1000  # Browsers, macOS and makers of disks also count 1 KB as 1000 bytes.
SPANS = ((86400, "day"), (3600, "hour"), (60, "minute"))
# Control characters, which keys of objects may have, and characters that turn the direction of text.
INVISIBLE = re.compile("([\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069])")
RECENT = timedelta(days=7)


def visible(name: str) -> str:
    """A name in which invisible characters are written out: they make different names look alike."""
    return INVISIBLE.sub(lambda found: f"[U+{ord(found[0]):04X}]", name)


def size(count: float) -> str:
    """A number of bytes, such as ``1.5 MB``."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(UNITS) - 1:
        value, unit = value / STEP, unit + 1
    if unit == 0:
        return "1 byte" if count == 1 else f"{count:.0f} bytes"
    return f"{value:.1f} {UNITS[unit]}" if value < 9.95 else f"{value:.0f} {UNITS[unit]}"


def moment(text: str | datetime | None) -> datetime | None:
    """The time that a document of the API names."""
    return datetime.fromisoformat(text) if isinstance(text, str) else text


def ago(then: datetime, now: datetime) -> str:
    """How long ago a time is, such as ``5 minutes ago``; the date if it is more than a week ago."""
    passed = now - then
    if passed > RECENT or passed < -timedelta(minutes=1):
        return f"{then.day} {then:%b %Y}"
    seconds = int(passed.total_seconds())
    for span, name in SPANS:
        if seconds >= span:
            return f"{count(seconds // span, name)} ago"
    return "just now"


def ahead(then: datetime, now: datetime) -> str:
    """How far ahead a time is, such as ``in 3 days``."""
    seconds = round((then - now).total_seconds())
    for span, name in SPANS:
        if seconds >= span:
            return f"in {count(round(seconds / span), name)}"
    return "in less than a minute"


def span(seconds: float) -> str:
    """A length of time, such as ``2 minutes``."""
    for length, name in SPANS:
        if seconds >= length:
            return count(round(seconds / length), name)
    return count(max(1, round(seconds)), "second")


def count(number: int, one: str, many: str = "") -> str:
    """A number of things, such as ``1 file`` or ``2 files``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def condition(file: Mapping[str, Any]) -> tuple[str, str]:
    """The state of a file's copies: a level (good, warn, bad) and words."""
    if file["state"] != "ready":
        return "wait", "Being stored"
    if not file["retrievable"]:
        return "bad", "Cannot be read now"
    has, wanted = file["min_replication"], file["replication_factor"]
    if not file["chunks"]:
        return "good", "Empty file"
    if has < wanted:
        return "warn", f"{has} of {count(wanted, 'copy', 'copies')}"
    return "good", count(has, "copy", "copies")


NODE_STATES: Mapping[str, tuple[str, str]] = {
    "active": ("good", "Works. New copies are put here."),
    "offline": ("bad", "Does not answer. See that its disk is there; its copies come back with it."),
    "read-only": ("bad", "Takes no copies: its file system is mounted read-only. Reading goes on."),
    "full": ("warn", "Takes no copies: its disk is full. Make room, or add a node."),
    "draining": ("wait", "Is being emptied, and is then taken out. Reading goes on."),
    "creating": ("wait", "Is being prepared."),
}
JOB_STATES: Mapping[str, tuple[str, str]] = {
    "queued": ("wait", "Waiting"),
    "running": ("wait", "Running"),
    "succeeded": ("good", "Done"),
    "failed": ("bad", "Failed"),
    "cancelled": ("warn", "Cancelled"),
}
JOB_KINDS: Mapping[str, str] = {
    "ingest": "Store an upload",
    "ingest segment": "Store a part of an upload",
    "repair": "Repair a damaged part",
    "refresh health": "Count the copies of files",
    "rebalance": "Change the number of copies",
    "rebuild sketch": "Rebuild the index of a node",
    "repair all": "Make all missing copies",
    "trace losses": "Look for lost copies",
    "reconcile": "Compare nodes with the database",
    "drain": "Empty a node",
    "reclaim": "Free the space of deleted files",
    "rebalance all": "Spread copies evenly",
    "census": "Count everything on all nodes",
    "audit": "Read and check everything on a node",
    "adopt": "Adopt unknown data",
}
LACKS: Mapping[str, str] = {
    "nodes": "waits until enough nodes answer",
    "space": "waits for room on the nodes",
    "redis": "waits for Redis",
    "database": "waits for the database",
}


def sentence(text: str) -> str:
    """The text with a full stop at its end, and with a capital letter at its beginning unless an id begins it."""
    stripped = text.strip().rstrip(".")
    if stripped.partition(" ")[0].isalpha():
        stripped = f"{stripped[0].upper()}{stripped[1:]}"
    return f"{stripped}." if stripped else ""


def trouble(text: str) -> tuple[str, str]:
    """Split a text of ``/health``, such as ``files cannot be read: 3; bring …``, into the fault and its remedy."""
    wrong, _, remedy = text.partition(": ")
    if remedy[:1].isdigit():
        number, _, remedy = remedy.partition("; ")
        wrong = f"{wrong}: {number}"
    return sentence(wrong), sentence(remedy)


ACTIONS: Mapping[str, tuple[str, str]] = {
    "upload": ("Uploads", "stored"),
    "rename": ("Renames", "renamed"),
    "delete": ("Deletions", "deleted"),
    "undo": ("Deletions taken back", "took back the deletion of"),
    "rebalance": ("Numbers of copies", "set the copies of"),
    "share": ("New share links", "shared"),
    "revoke link": ("Revoked share links", "revoked a link to"),
    "create key": ("New keys", "made the key"),
    "rotate key": ("Rotated keys", "gave a new secret to the key"),
    "revoke key": ("Revoked keys", "revoked the key"),
    "add node": ("New nodes", "added the node"),
    "retire node": ("Nodes given up", "gave up the node"),
    "maintain": ("Maintenance", "started the"),
    "cancel job": ("Cancelled jobs", "cancelled the"),
    "retry job": ("Retried jobs", "tried again the"),
}
"""What was done → the name of such acts, and the verb in a sentence about one."""

FINDINGS: Mapping[str, str] = {
    "corrupt": "damaged",
    "unreadable": "unreadable",
    "short": "with too few copies",
    "lost": "without a copy",
    "surplus": "with too many copies",
    "orphans": "of no file",
    "leftovers": "unfinished",
}


def act(done: Mapping[str, Any]) -> tuple[str, str]:
    """The verb of a sentence about an act, and the words that follow the name of the thing."""
    verb, detail = ACTIONS[done["action"]][1], done["detail"]
    if done["action"] == "rename":
        return verb, f"to “{visible(detail)}”"
    if done["action"] == "rebalance":
        return verb, f"to {detail}"
    return verb, f"({detail})" if detail and done["action"] in ("create key", "rotate key", "revoke key") else ""


def findings(audit: Mapping[str, Any]) -> str:
    """What an audit has found, in words."""
    if audit["state"] != "succeeded":
        return JOB_STATES[audit["state"]][1].lower()
    found = [f"{number:,} {FINDINGS[name]}" for name, number in audit["found"].items() if number]
    return ", ".join(found) or "all well"


def node_plan(operation: str, plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plan of an operation on a node: label and figure of each line."""
    if operation == "retire":
        return [("Files that cannot be read now, and would be lost", f"{plan['unreadable']:,}")]
    lines = [("Copies on the node", f"{plan['copies']:,}"), ("Their size", size(plan["bytes"]))]
    if operation == "drain":
        lines.append(("To write elsewhere first", size(plan["to_write"])))
        return [*lines, *([("Copies of no file, only removed", f"{plan['orphans']:,}")] if plan["orphans"] else [])]
    lines.append(("Reading all of it takes about", span(plan["seconds"])))
    return [*lines, *((f"Parts {text}", f"{plan[name]:,}") for name, text in FINDINGS.items() if plan.get(name))]
