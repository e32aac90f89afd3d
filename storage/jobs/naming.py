"""Names of jobs in words, as the commands, the pages and their messages show them."""

from __future__ import annotations

from storage.models import Job

# A kind that is not listed here is named by its value.
NOUNS = {
    Job.Kind.INGEST_SEGMENT: "ingest of a segment",
    Job.Kind.REFRESH_HEALTH: "health check",
    Job.Kind.REBUILD_SKETCH: "sketch rebuild",
    Job.Kind.REPAIR_ALL: "repair",
    Job.Kind.TRACE: "trace of losses",
    Job.Kind.REBALANCE_ALL: "rebalance",
    Job.Kind.ADOPT: "adoption",
}
# A subject that is not listed here is a node id, or stands for a file.
THINGS = {
    "all": "the cluster",
    "cluster": "the cluster",
    "keep": "the volumes, with unknown chunks kept",
    "condemn": "the volumes, with unknown chunks removed",
}
HASH_DIGITS = 16


def subject_of(job: Job) -> str:
    """The subject of a job, as an operator would name it. A hash is cut; the subject of an arriving upload is empty."""
    return (job.file_hash or job.subject or "")[:HASH_DIGITS]


def name_of(job: Job) -> str:
    """A job in words, such as ``drain of node_000`` or ``rebalance of the cluster``."""
    noun = noun_of(job.kind)
    subject = subject_of(job)
    return f"{noun} of {THINGS.get(subject, subject)}" if subject else noun


def noun_of(kind: str) -> str:
    """The word for the work that jobs of a kind do."""
    return NOUNS.get(Job.Kind(kind), kind)
