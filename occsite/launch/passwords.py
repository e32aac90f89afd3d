"""The passwords of the databases that run in containers of their own.

Each password is a file in a volume that only its database and the programs mount. Nobody has to invent a password,
and no password has to stand in the environment of a container.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from occsite.launch.files import sync_directory
from storage.credentials import credential
from storage.exceptions import ConfigurationError

USER = "occ"
# The programs have these rights in Redis. The category "dangerous" has FLUSHALL, FLUSHDB, KEYS, CONFIG, DEBUG, SHUTDOWN
# and more. The category also has INFO, which is allowed: the sketches need the id of the server's run.
RIGHTS = "~* &* +@all -@admin -@dangerous +info"
HARMLESS = re.compile(r"[A-Za-z0-9._~-]{8,200}", re.ASCII)


def make_passwords(folder: Path, environment: Mapping[str, str]) -> None:
    """Write the passwords of PostgreSQL and Redis, and the users of Redis, into ``folder``.

    A password is the value of POSTGRES_PASSWORD or REDIS_PASSWORD. If the variable is not set, the password of the last
    start stays; the first start makes a random password.

    Args:
        folder: a directory with the directories ``postgres`` and ``redis``.
        environment: the environment variables.

    Raises:
        ConfigurationError: a password is too short, or has other characters than letters, digits, and ``._~-``.
        OSError: a file cannot be written.
    """
    for database in ("postgres", "redis"):
        path, variable = folder / database / "password", f"{database.upper()}_PASSWORD"
        wanted = credential(environment, variable)
        if wanted is not None and not HARMLESS.fullmatch(wanted):
            raise ConfigurationError(f"{variable} needs 8 to 200 letters, digits, or characters of ._~-")
        if wanted is not None or not path.exists():
            _write(path, wanted or secrets.token_urlsafe(32))
    _write(folder / "redis" / "users.acl", users_of_redis((folder / "redis" / "password").read_text()))


def users_of_redis(password: str) -> str:
    """The content of Redis's file of users: one user for the programs, and no user without a password."""
    return f"user default off\nuser {USER} on #{hashlib.sha256(password.encode()).hexdigest()} {RIGHTS}\n"


def _write(path: Path, text: str) -> None:
    """Write a file that every user may read, because each database runs as another user."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o444)
    draft.replace(path)
    sync_directory(path.parent)
