"""The policy of a form: what the form may store, and until when. Pure.

Source: "Creating a POST policy" in the Amazon S3 API Reference.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from storage.s3.errors import S3Error

UNCOVERED = frozenset(("awsaccesskeyid", "file", "policy", "signature", "x-amz-signature"))
IGNORED = "x-ignore-"
EQUAL, BEGINS, SIZE = "eq", "starts-with", "content-length-range"

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """What one field of a form must be.

    Attributes:
        operator: ``EQUAL`` or ``BEGINS``.
        field: the name of the field in lower case.
        value: the value of the field, or the beginning of the value.
        text: the condition as the policy has it.
    """

    operator: str
    field: str
    value: str
    text: str

    def holds(self, fields: Mapping[str, str]) -> bool:
        """True if a form with these fields fulfils the condition. No condition holds for a field that is missing."""
        found = fields.get(self.field)
        if found is None or self.operator == EQUAL:
            return found == self.value
        # S3 takes a Content-Type with commas for a list. Every value of the list must fulfil the condition.
        values = found.split(",") if self.field == "content-type" else [found]
        return all(value.strip().startswith(self.value) for value in values)


@dataclass(frozen=True)
class Policy:
    """A policy that has been read.

    Attributes:
        expiration: the time from which the policy is no longer good.
        conditions: the conditions on fields.
        least: the smallest size of the file in bytes.
        most: the largest size of the file in bytes; None if the policy sets none.
    """

    expiration: datetime
    conditions: tuple[Condition, ...]
    least: int
    most: int | None

    def require(self, fields: Mapping[str, str], now: datetime) -> None:
        """Refuse a form that the policy does not allow.

        Args:
            fields: the fields of the form: name in lower case → value. ``bucket`` is the bucket of the address.
            now: the time.

        Raises:
            S3Error: the policy has expired, a condition does not hold, or no condition is about a field of the form.
        """
        if now >= self.expiration:
            raise _denied("Policy expired.")
        for condition in self.conditions:
            if not condition.holds(fields):
                raise _denied(f"Policy Condition failed: {condition.text}")
        covered = UNCOVERED | {condition.field for condition in self.conditions}
        extra = [name for name in fields if name not in covered and not name.startswith(IGNORED)]
        if extra:
            raise _denied(f"Extra input fields: {', '.join(extra)}")


def parse(text: str) -> Policy:
    """Read a policy.

    Args:
        text: the policy in Base64, as the form has it.

    Raises:
        S3Error: the policy is malformed.
    """
    document = _document(text)
    for name in ("expiration", "conditions"):
        if name not in document:
            raise _invalid(f"Policy missing {name}.")
    expiration = _moment(document["expiration"])
    conditions, least, most = [], 0, None
    if not isinstance(document["conditions"], list):
        raise _invalid("Invalid 'conditions' value: a list is expected.")
    for item in document["conditions"]:
        if _is_size(item):
            low, high = map(_number, item[1:])
            least, most = max(least, low), high if most is None else min(most, high)
        else:
            conditions.append(_condition(item))
    return Policy(expiration, tuple(conditions), least, most)


def _document(text: str) -> dict[str, Any]:
    try:
        decoded = base64.b64decode("".join(text.split()), validate=True).decode()
        # S3 lets a policy write a dollar sign with a backslash, which JSON does not know.
        plain = _ESCAPE.sub(lambda match: "$" if match[1] == "$" else match[0], decoded)
        document = json.loads(plain, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _moment(text: object) -> datetime:
    try:
        if isinstance(text, str) and _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass  # The text has the form of a time, but no such day or hour exists.
    raise _invalid(f"Invalid 'expiration' value: {json.dumps(text)}")


def _is_size(item: object) -> bool:
    if not isinstance(item, list) or not item or not isinstance(item[0], str) or item[0].lower() != SIZE:
        return False
    if len(item) != 3:
        raise _invalid(f"{SIZE} has two numbers.")
    return True


def _number(value: object) -> int:
    """The number of bytes in a condition. Some programs write the number as a text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not _NUMBER.fullmatch(str(value)):
        raise _invalid(f"{SIZE} has two numbers that are not negative.")
    return int(value)


def _condition(item: object) -> Condition:
    if isinstance(item, dict):
        if len(item) != 1:
            raise _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
        ((name, value),) = item.items()
        parts: list[object] = [EQUAL, f"${name}", value]
    elif isinstance(item, list) and len(item) == 3:
        parts = item
    else:
        raise _invalid("Invalid Condition: an operator, a field and a value are expected.")
    operator, field, value = (part if isinstance(part, str) else "" for part in parts)
    if operator.lower() not in (EQUAL, BEGINS) or not field.startswith("$") or not isinstance(parts[2], str):
        raise _invalid(f"Invalid Condition: {json.dumps(item)}")
    return Condition(operator.lower(), field[1:].lower(), value, json.dumps(parts))


def _invalid(reason: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {reason}")


def _denied(reason: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {reason}")
