"""Shows how PostgreSQL executes the statements of an operation: measured plans. No change to the rows is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

EXPLAINED = re.compile(r"\s*(SELECT(?! pg_)|WITH|INSERT|UPDATE|DELETE)\b")
TOOK = re.compile(r"Execution Time: ([0-9.]+) ms")
LARGEST_PLAN = 60  # The most lines of a plan that are shown.


@dataclass(frozen=True)
class Plan:
    """A statement, its plan, and the milliseconds that the statement took."""

    sql: str
    lines: list[str]
    took: float


def of(operation: Callable[[], Any]) -> list[Plan]:
    """Execute an operation, explaining each statement before it runs, and roll everything back."""
    found: list[Plan] = []

    def explain(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if many or not EXPLAINED.match(sql):
            return execute(sql, params, many, context)
        execute("SAVEPOINT explained", None, False, context)
        execute("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY ON) " + sql, params, False, context)
        lines = [row[0] for row in context["cursor"].fetchall()]
        execute("ROLLBACK TO SAVEPOINT explained", None, False, context)
        took = TOOK.search("\n".join(lines))
        found.append(Plan(" ".join(sql.split()), lines, float(took[1]) if took else 0.0))
        return execute(sql, params, many, context)

    with transaction.atomic():
        with connection.execute_wrapper(explain):
            operation()
        transaction.set_rollback(True)
    return found


def shown(plans: list[Plan]) -> str:
    """Return statements and plans as text for a reader."""
    parts = []
    for plan in plans:
        kept = [line for line in plan.lines if not re.match(r"\s*(Planning|Buffers: .* dirtied$|Settings)", line)]
        parts.append("\n".join([f"-- {plan.sql[:600]}", *kept[:LARGEST_PLAN], ""]))
    return "\n".join(parts)
