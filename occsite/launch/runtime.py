"""The directory of the sockets, which has a short path, and processes that an earlier run may have left behind."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

from storage.exceptions import ConfigurationError

MEMORY = Path("/dev/shm")  # noqa: S108  owner and mode of the directory in it are checked


def runtime_dir(storage_dir: Path) -> Path:
    """The directory of the sockets that belong to ``storage_dir``, the same for every process of one user.

    The path of this directory is short even if ``storage_dir`` is long: the path of a Unix socket must stay below 107
    bytes. The directory does not depend on TMPDIR, which may differ between two terminals.
    """
    digest = hashlib.sha256(os.fsencode(storage_dir.resolve())).hexdigest()
    return Path(f"/tmp/occ-{os.geteuid()}-{digest[:12]}")  # noqa: S108  owner and mode are checked below


def scratch_dir(storage_dir: Path) -> Path:
    """The directory of the programs' temporary files, in memory if Linux offers that.

    Celery cannot start a process without a temporary file, and must be able to start one while the disk is full.
    """
    runtime = runtime_dir(storage_dir)
    return MEMORY / runtime.name if os.access(MEMORY, os.W_OK | os.X_OK) else runtime


def make_runtime_dir(storage_dir: Path) -> Path:
    """Create the runtime directory with mode 0700, or make sure that an existing one is ours alone.

    Raises:
        ConfigurationError: something else lies at its path, or others may enter it.
    """
    return make_own_dir(runtime_dir(storage_dir))


def make_own_dir(path: Path) -> Path:
    """Make a directory with mode 0700, or check that an existing one is ours alone: its parent is open to all users.

    Raises:
        ConfigurationError: something else lies at its path, or others may enter it.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
            raise ConfigurationError(f"{path} must be a folder with mode 0700 of this user; remove it") from None
    except OSError as error:
        raise ConfigurationError(
            f"the folder {path} cannot be made: {error.strerror}; make {path.parent} writable, with room for it"
        ) from None
    return path


def lingering(storage_dir: Path) -> list[int]:
    """The pids of embedded servers: of all processes whose working directory is that of such a server."""
    folders = {str(storage_dir.resolve() / name) for name in ("postgres", "postgres.new", "valkey")}
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(link.readlink()) in folders:
                found.append(int(link.parent.name))
        except OSError:
            continue  # The process has ended, or belongs to another user.
    return found


def await_departure(storage_dir: Path, limit: float) -> None:
    """Wait at most ``limit`` seconds until the servers of a run that was killed have ended.

    Raises:
        ConfigurationError: a server still runs after that time.
    """
    deadline = time.monotonic() + limit
    while remaining := lingering(storage_dir):
        if time.monotonic() > deadline:
            pids = ", ".join(map(str, remaining))
            raise ConfigurationError(f"processes of an earlier run still use {storage_dir}; end them: {pids}")
        time.sleep(0.1)
