"""A JSON renderer that saves time and memory: an answer may list the nodes of forty thousand chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder

_default = JSONEncoder().default


class JsonRenderer(JSONRenderer):
    """DRF's JSON renderer. orjson writes the JSON, except when the client asks for indented JSON.

    A line break ends each document, so a shell's prompt stands on a line of its own.
    """

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        context = renderer_context or {}
        if data is None:
            return b""
        if self.get_indent(accepted_media_type or self.media_type, context) is not None:
            return bytes(super().render(data, accepted_media_type, context)) + b"\n"
        return orjson.dumps(data, default=_default, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_APPEND_NEWLINE)
