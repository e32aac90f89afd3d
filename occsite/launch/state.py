"""The conditions for the start of a run: it has the state directory for itself, and the port is free."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import IO

from storage.exceptions import ConfigurationError


def make_state_dir(storage_dir: Path) -> None:
    """Create the state directory.

    Raises:
        ConfigurationError: the directory cannot be created or written, or characters of its path cannot be printed.
    """
    path = str(storage_dir)
    if not path.isprintable():
        raise ConfigurationError(f"STORAGE_DIR={path!r} has characters that cannot be printed; choose another folder")
    try:
        storage_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"STORAGE_DIR cannot be made: {error}; choose another folder") from None
    if not os.access(storage_dir, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"STORAGE_DIR={path} is not writable for this user; change its owner or choose another"
        )


def lock_state(storage_dir: Path) -> IO[str]:
    """Take the state directory for this process, for as long as the returned file is open.

    The lock is a flock: the kernel frees it however the process ends. The programs that the process starts do not
    inherit the lock.

    Raises:
        ConfigurationError: another run has the lock.
    """
    try:
        file = (storage_dir / "lock").open("a+")
    except OSError as error:
        raise ConfigurationError(f"STORAGE_DIR cannot be locked: {error}; be the user that it belongs to") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise ConfigurationError(
            f"another run (pid {holder}) uses {storage_dir}; stop it, or set another STORAGE_DIR and PORT"
        ) from None
    with contextlib.suppress(OSError):  # The pid is only for messages, and a full disk may have no room for it.
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    return file


def restoring_marker(storage_dir: Path) -> Path:
    """The file that is in the state directory while a backup is being restored into it."""
    return storage_dir / "restoring"


def require_whole(storage_dir: Path) -> None:
    """Make sure that no restore was interrupted: a start on half a database would make a new, empty cluster.

    Raises:
        ConfigurationError: a restore runs, or did not end.
    """
    if restoring_marker(storage_dir).exists():
        raise ConfigurationError(
            f"a restore into {storage_dir} has not ended: let it end, or run `manage.py restore` again"
        )


def check_port(host: str, port: int, variable: str) -> None:
    """Make sure that ``host:port`` can be listened on.

    Args:
        host: the address.
        port: the port.
        variable: the environment variable that the port is from, for the message.

    Raises:
        ConfigurationError: the port is taken or reserved, or ``host`` is no address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = authority(host, port)
        raise ConfigurationError(
            f"cannot listen on {where}: {error.strerror}; set another {variable} or HOST"
        ) from None


def authority(host: str, port: int) -> str:
    """``host:port`` in the form that a URL has."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """True if a server that listens on ``host`` can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def local_url(host: str, port: int) -> str:
    """The URL at which a client on this machine reaches a server that listens on ``host:port``."""
    return "http://" + authority({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104
