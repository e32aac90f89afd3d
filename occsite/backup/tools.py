"""The programs pg_dump, pg_restore and psql: those of the embedded PostgreSQL, or those that the machine has."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection
from psycopg.conninfo import make_conninfo

from occsite.launch.embedded import postgres_bin
from occsite.launch.process import dying_with_parent
from storage.exceptions import BackupError, ConfigurationError

DEBIAN = Path("/usr/lib/postgresql")  # Debian has a directory for each major version here.
NAMES = ("pg_dump", "pg_restore", "psql")
BLOCK = 1 << 16
# Programs of PostgreSQL 17 and later begin a script with this setting, which earlier servers do not know.
NEW_SETTING, KNOWN_SINCE = b"SET transaction_timeout = 0;\n", 17
_QUIET = "-c client_min_messages=warning"  # Notices would fill a pipe that nobody reads before the end.
# The programs do not get these parameters, which are for psycopg alone, or belong to sessions of the service.
_NOT_FOR_LIBPQ = ("password", "options", "prepare_threshold", "cursor_factory", "context", "application_name")


@dataclass(frozen=True)
class Tools:
    """The directory of the programs, and the major version of PostgreSQL that they are from."""

    folder: Path
    major: int

    @classmethod
    def all(cls) -> dict[int, Tools]:
        """The programs that this machine has, by their major version."""
        return {major: cls(folder, major) for folder in reversed(_folders()) if (major := _major(folder))}

    @classmethod
    def fitting(cls, server: int) -> Tools:
        """The programs for a dump of a server of this major version: of the same, or else of the next later version.

        Raises:
            BackupError: no program is there, or all are older than the server and would refuse to dump it.
        """
        found = cls.all()
        usable = [major for major in found if major >= server]
        if not usable:
            there = f"that of {', '.join(map(str, sorted(found)))}" if found else "none"
            raise BackupError(
                f"pg_dump of PostgreSQL {server} is needed, and there is {there}: "
                f"install Debian's package postgresql-client-{server}"
            )
        return found[min(usable)]

    @classmethod
    def latest(cls) -> Tools:
        """The latest programs: they can read every dump that a program here has written.

        Raises:
            BackupError: no program is there.
        """
        found = cls.all()
        if not found:
            raise BackupError("pg_restore and psql are needed: install Debian's package postgresql-client")
        return found[max(found)]

    def argv(self, name: str, *arguments: str) -> list[str]:
        """The command line of a program. The program ends when this process dies."""
        return dying_with_parent(signal.SIGKILL, [str(self.folder / name), *arguments])


def dump(path: Path, snapshot: str) -> None:
    """Write the database into a file, as ``snapshot``, which another session has exported, shows it.

    Raises:
        BackupError: pg_dump has failed.
    """
    arguments = ("--format=custom", "--no-comments", f"--snapshot={snapshot}", f"--file={path}", *_connection())
    _run(Tools.fitting(server_major()).argv("pg_dump", *arguments), _environment(), "the database cannot be dumped")


def load(path: Path) -> None:
    """Replace the whole contents of the database by a dump, in one transaction: after a failure, nothing has changed.

    Raises:
        BackupError: the dump cannot be read, or PostgreSQL refuses it.
    """
    tools, server = Tools.latest(), server_major()
    reading = tools.argv("pg_restore", "--file=-", "--no-owner", "--no-privileges", "--no-comments", str(path))
    writing = tools.argv(
        "psql", "--no-psqlrc", "--quiet", "--output=/dev/null", "-v", "ON_ERROR_STOP=1", *_connection()
    )
    environment = _environment()
    with (
        subprocess.Popen(reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script,
        subprocess.Popen(writing, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as session,
    ):
        assert script.stdout and script.stderr and session.stdin and session.stderr
        try:
            session.stdin.write(b"BEGIN;\nDROP SCHEMA IF EXISTS public CASCADE;\nCREATE SCHEMA public;\n")
            head = script.stdout.read(BLOCK)
            session.stdin.write(head.replace(NEW_SETTING, b"") if server < KNOWN_SINCE else head)
            shutil.copyfileobj(script.stdout, session.stdin, BLOCK)
            # If the input of psql ends without COMMIT, psql rolls back: half a script must not be committed.
            if script.wait() == 0:
                session.stdin.write(b"\nCOMMIT;\n")
            session.stdin.close()
        except BrokenPipeError:
            script.kill()  # psql has ended at an error, which is raised below.
        said = session.stderr.read() or script.stderr.read()
        status = session.wait() or script.wait()
    if status:
        raise BackupError(f"the dump cannot be restored: {_reason(said.decode(errors='replace'))}")


def check(path: Path) -> None:
    """Make sure that pg_restore can read a dump to its end. No server is asked.

    Raises:
        BackupError: pg_restore cannot read the dump.
    """
    _run(Tools.latest().argv("pg_restore", "--file=/dev/null", str(path)), os.environ, f"{path} cannot be read")


def server_major() -> int:
    """The major version of the PostgreSQL that this process is connected to."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        return int(cursor.fetchone()[0])


def _folders() -> list[Path]:
    """Directories that may have the programs, the preferred ones first."""
    found = []
    with suppress(ConfigurationError):  # The package need not be installed if DATABASE_URL names a server.
        found.append(postgres_bin())
    found += sorted(DEBIAN.glob("*/bin"))
    if path := shutil.which("pg_dump"):
        found.append(Path(path).parent)
    return found


def _major(folder: Path) -> int:
    """The version of the programs in a directory; 0 if one of them is missing or does not run."""
    if not all((folder / name).exists() for name in NAMES):
        return 0
    told = subprocess.run([str(folder / "pg_dump"), "--version"], capture_output=True, text=True)
    match = re.search(r"\) (\d+)", told.stdout)
    return int(match[1]) if match else 0


def _connection() -> list[str]:
    parameters = {
        name: value for name, value in connection.get_connection_params().items() if name not in _NOT_FOR_LIBPQ
    }
    return ["--no-password", f"--dbname={make_conninfo(**parameters, application_name='occ backup')}"]


def _environment() -> Mapping[str, str]:
    """The environment of a program, with the password: other users can see the arguments of a program."""
    parameters: dict[str, Any] = connection.get_connection_params()
    return {**os.environ, "PGPASSWORD": str(parameters.get("password") or ""), "PGOPTIONS": _QUIET, "LC_ALL": "C"}


def _run(argv: list[str], environment: Mapping[str, str], complaint: str) -> None:
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise BackupError(f"{complaint}: {_reason(done.stderr)}")


def _reason(text: str) -> str:
    """The first line about an error, or else the first line."""
    lines = [line for line in text.strip().splitlines() if "error" in line.lower()] or text.strip().splitlines()
    return lines[0].strip() if lines else "it ended without a word"
