"""Column types."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

DIGEST_SIZE = 32  # The number of bytes of a SHA-256.
HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class DigestField(models.Field[str, str]):
    """A SHA-256: 64 lower-case hex digits in Python, 32 bytes in PostgreSQL.

    Hashes with the same prefix form a range.
    """

    description = "SHA-256"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["editable"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["editable"]
        return name, path, args, kwargs

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "bytea"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str | None:
        return None if value is None else bytes(value).hex()

    def get_prep_value(self, value: Any) -> Any:
        if isinstance(value, str):
            if not HEX_DIGEST.fullmatch(value):
                raise ValidationError("not a SHA-256 in lower-case hex")
            return bytes.fromhex(value)
        return value
