"""Column types."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class DigestField(models.BinaryField):  # type: ignore[type-arg]
    """A SHA-256: 64 lower-case hex digits in Python, 32 bytes in PostgreSQL."""

    description = "SHA-256"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 32
        kwargs["editable"] = kwargs.get("editable", False)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        kwargs.pop("max_length", None)
        return name, path, args, kwargs

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str | None:
        return None if value is None else bytes(value).hex()

    def to_python(self, value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        return bytes(value).hex()

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, str):
            if not HEX_DIGEST.fullmatch(value):
                raise ValidationError("not a SHA-256 in lower-case hex")
            return bytes.fromhex(value)
        return value

    def value_to_string(self, obj: Any) -> str:
        return str(self.value_from_object(obj))
