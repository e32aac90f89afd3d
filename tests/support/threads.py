"""Run functions at the same time, each in a database session of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from django.db import connection

from storage.exceptions import StorageError


def at_once(acts: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all functions at the same time. Return their results or domain errors."""
    ready = Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        try:
            ready.wait(timeout=30)
            return act()
        except StorageError as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))
