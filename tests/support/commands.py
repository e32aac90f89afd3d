"""Management commands for tests."""

from __future__ import annotations

from io import StringIO

from django.core.management import call_command

from storage.models import Cluster, File, Job, Node
from tests.support.cluster import ClusterUnderTest


def run(*arguments: str, out: StringIO | None = None) -> str:
    """Run a management command; returns the text that it prints."""
    out = out or StringIO()
    call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def state_of(cluster: ClusterUnderTest) -> object:
    """Everything that a plan could have changed: rows and files."""
    rows = [list(model.objects.order_by("pk").values()) for model in (Cluster, Node, File, Job)]
    paths = sorted(path for path in cluster.configuration.storage_dir.rglob("*") if path.is_file())
    return rows, [(path, path.stat().st_mtime_ns) for path in paths]
