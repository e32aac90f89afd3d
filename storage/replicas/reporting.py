"""Readers report, workers judge (RACES 16)."""

from __future__ import annotations

import structlog
from django.db import DatabaseError

from storage.models import Job

log = structlog.get_logger(__name__)


def report(chunk_hash: str) -> None:
    """Have a worker judge the copies of a chunk; without a database the next reader, or an audit, finds them again."""
    try:
        Job.request(Job.Kind.REPAIR, chunk_hash)
    except DatabaseError as error:
        log.warning("report.lost", chunk=chunk_hash, error=str(error))
