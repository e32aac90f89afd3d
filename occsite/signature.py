"""The name under which a process shows itself to PostgreSQL: its program, its version, and digests of its settings.

PostgreSQL lists the names of all sessions. So `manage.py doctor` sees which programs run, and whether one of them has
another version or other settings. PostgreSQL forgets a session when it ends, so no process has to record or clean up
anything.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, fields

from storage.conf import VERSION, Configuration

PROGRAM = "OCC_PROGRAM"
"""The environment variable with the name of a program, which the process manager and `manage.py run` set."""

COMMAND = "command"
"""The name of a process that is none of the programs, such as a management command."""

LONGEST = 63  # PostgreSQL cuts longer names.
PREFIX = "occ"
SECRET_KEY = "SECRET_KEY"  # noqa: S105  the name of the variable
# The settings in _OWN may differ between processes, or are read from PostgreSQL by all processes. The key of the
# configuration may be empty: the key that is in use has a digest of its own.
_OWN = {
    *("storage_dir", "host", "port", "debug", "ingest_workers", "log_to_stdout", "trusted_proxies"),
    *("database_url", "redis_url", "num_nodes", "n_prime", "tau", "node_volumes", "compress", "secret_key"),
}


@dataclass(frozen=True)
class Signature:
    """A session's name, taken apart."""

    program: str
    version: str
    digests: str

    @classmethod
    def parse(cls, name: str) -> Signature | None:
        """Take a name apart; None if it is no name of this service."""
        prefix, _, rest = name.partition(" ")
        parts = rest.split(" ")
        return cls(*parts) if prefix == PREFIX and len(parts) == 3 else None

    def differences(self, other: Signature) -> list[str]:
        """The names of the variables whose values differ; empty if the versions differ, as digests then say nothing."""
        if self.version != other.version:
            return []
        pairs = zip(_names(), _split(self.digests), _split(other.digests), strict=False)
        return [name for name, mine, theirs in pairs if mine != theirs]


def signature(program: str, configuration: Configuration, secret_key: str) -> str:
    """The name for the sessions of a process."""
    values = [*(repr(getattr(configuration, name.lower())) for name in _names()[:-1]), secret_key]
    digests = bytes(_digest(name, value) for name, value in zip(_names(), values, strict=True))
    return f"{PREFIX} {program} {VERSION} {urlsafe_b64encode(digests).decode().rstrip('=')}"


def _names() -> list[str]:
    """The variables that must be the same in all processes, in the order of their digests."""
    return [*(field.name.upper() for field in fields(Configuration) if field.name not in _OWN), SECRET_KEY]


def _digest(name: str, value: str) -> int:
    """A digest of one byte, so one change in 256 is overlooked. A name has room for 30 of them."""
    return hashlib.sha256(f"{name} {value}".encode()).digest()[0]


def _split(digests: str) -> bytes:
    try:
        return urlsafe_b64decode(digests + "=" * (-len(digests) % 4))
    except ValueError:
        return b""
