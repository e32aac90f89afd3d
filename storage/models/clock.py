"""PostgreSQL's clock: the only one that times in the database are compared with (RACES 27).

It may be set back like any other. A time in the database that lies further ahead than it ever can is one from before
that, and is taken to be over or is begun anew; nobody waits until the clock has come there again.
"""

from __future__ import annotations

import datetime

from django.db import models
from django.db.models import Func

from storage.models.statements.prepared import rows


class Clock(Func):
    """The time now, in a query: it goes on while a transaction lasts."""

    function = "clock_timestamp"
    output_field = models.DateTimeField()


def now() -> datetime.datetime:
    """The time now, by PostgreSQL."""
    ((time,),) = rows("SELECT clock_timestamp()", ())
    assert isinstance(time, datetime.datetime)
    return time
