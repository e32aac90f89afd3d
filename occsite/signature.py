"""The name under which a process shows itself to PostgreSQL: its program, its version, and digests of its settings.

PostgreSQL lists the names of all sessions. So `manage.py doctor` sees which programs run, and whether one of them has
another version or other settings. PostgreSQL forgets a session when it ends, so no process has to record or clean up
anything.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass, fields

from storage.conf import VERSION, Configuration, Provider

PROGRAM = "OCC_PROGRAM"
"""The environment variable with the name of a program, which the process manager and `manage.py run` set."""

COMMAND = "command"
"""The name of a process that is not one of the programs, such as a management command."""

LONGEST = 63  # PostgreSQL cuts longer names.
PREFIX = "occ"
WHOLE = 2  # The digest of all settings together has this many characters. A name has room for 39 settings.
UNNAMED = "a setting that cannot be named"
# The settings in _OWN may differ between processes, or are read from PostgreSQL by all processes. ``secret_key``
# may be empty, so the secret key in use has a digest of its own. So has each variable of the OpenID provider.
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
        if self.version != other.version or self.digests == other.digests:
            return []
        pairs = zip(_names(), self.digests[WHOLE:], other.digests[WHOLE:], strict=False)
        return [name for name, mine, theirs in pairs if mine != theirs] or [UNNAMED]


def signature(program: str, configuration: Configuration, secret_key: str) -> str:
    """The name for the sessions of a process.

    Each setting has a digest of one character, which is six bits: one change in 64 cannot be named. Of these changes,
    the digest of all settings together overlooks one in 4096. Longer digests would help whoever sees the names to guess
    secrets.
    """
    values = [
        *(getattr(configuration, name) for name in _settings()),
        *(getattr(configuration.provider, field.name, None) for field in fields(Provider)),
        secret_key,
    ]
    words = [f"{name} {value!r}" for name, value in zip(_names(), values, strict=True)]
    return f"{PREFIX} {program} {VERSION} {_digest(repr(words), WHOLE)}{''.join(_digest(each, 1) for each in words)}"


def _names() -> list[str]:
    """The variables that must be the same in all processes, in the order of their digests."""
    provider = [f"OIDC_{field.name.upper()}" for field in fields(Provider)]
    return [*(name.upper() for name in _settings()), *provider, "SECRET_KEY"]


def _settings() -> list[str]:
    return [field.name for field in fields(Configuration) if field.name not in _OWN]


def _digest(value: str, characters: int) -> str:
    return urlsafe_b64encode(hashlib.sha256(value.encode()).digest()).decode()[:characters]
