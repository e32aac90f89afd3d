"""PostgreSQL's clock: times in the database are compared with this clock only (RACES 27).

PostgreSQL's clock may be set back, like any other clock. After such a step, times that were written earlier can lie
further in the future than any time that a process sets. A lease or a pause whose end lies too far in the future counts
as over, or begins again now: no process waits until the clock reaches the old time again.
"""

from __future__ import annotations

import datetime

from django.db import models
from django.db.models import Func

from storage.models.statements.prepared import rows


class Clock(Func):
    """The present time, in a query. This clock advances during a transaction, unlike ``now()``."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


def now() -> datetime.datetime:
    """The present time by PostgreSQL's clock."""
    ((time,),) = rows("SELECT clock_timestamp()", ())
    assert isinstance(time, datetime.datetime)
    return time
