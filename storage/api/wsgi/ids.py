"""The id of a request, which its answer, its problem document and the lines of the log have in common."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

ID = "occ.request_id"  # the environ's key for the id
FIELD = "X-Request-ID"
GOOD = re.compile(r"[A-Za-z0-9._=:+/-]{1,128}", re.ASCII)
# The field of W3C Trace Context: version, id of the trace, id of the caller's span, flags. An id of zeros is invalid.
TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.ASCII)


def id_for(environ: Mapping[str, Any]) -> str:
    """Choose the id of a request: X-Request-ID if it is short and has harmless characters only; otherwise the trace's
    id; without a trace, a new id.
    """
    given: str = environ.get("HTTP_X_REQUEST_ID", "")
    if GOOD.fullmatch(given):
        return given
    trace = TRACE.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
    return trace[1] if trace else str(uuid.uuid4())
