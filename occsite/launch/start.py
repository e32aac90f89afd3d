"""The start and the end of a run: the checks before the manager takes over, and the removal of directories after it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from occsite.launch.embedded import prepare_postgres, prepare_valkey
from occsite.launch.files import write_private
from occsite.launch.manager import run
from occsite.launch.output import say
from occsite.launch.programs import supervisor_configuration
from occsite.launch.runtime import await_departure, make_own_dir, make_runtime_dir, runtime_dir, scratch_dir
from occsite.launch.secret import make_secret, read_secret
from occsite.launch.state import check_port, lock_state, make_state_dir, require_whole
from storage.conf import Configuration
from storage.exceptions import ConfigurationError

DEPARTURE_LIMIT = 15.0  # A database of a killed run has this many seconds to write its last checkpoint.
TOOLS = {"setpriv": "util-linux", "unshare": "util-linux", "sh": "dash"}  # command → its package in Debian


def serve(configuration: Configuration) -> int:
    """Run the whole system until a signal ends the run, or the first start fails.

    Returns:
        The exit status: 0 after a signal, 1 after a failure.

    Raises:
        ConfigurationError: the environment does not allow a start.
    """
    storage_dir = configuration.storage_dir
    os.umask(0o077)
    make_state_dir(storage_dir)
    with lock_state(storage_dir):
        folders = [make_runtime_dir(storage_dir), make_own_dir(scratch_dir(storage_dir))]
        try:
            _prepare(configuration, folders)
            say("starting the databases\n")
            return run(configuration, runtime_dir(storage_dir) / "manager.conf")
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)


def _prepare(configuration: Configuration, folders: list[Path]) -> None:
    storage_dir = configuration.storage_dir
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise ConfigurationError(f"the command {tool} is missing; install it (Debian's package {package})")
    require_whole(storage_dir)
    check_port(configuration.host, configuration.port, "PORT")
    if configuration.s3_port:
        check_port(configuration.host, configuration.s3_port, "S3_PORT")
    await_departure(storage_dir, DEPARTURE_LIMIT)
    if (storage_dir / "postgres").exists() and not read_secret(storage_dir):
        raise ConfigurationError(
            f"{storage_dir / 'secret'} is gone, and with it the password of the database there; put it back"
        )
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)  # A killed run may have left files in this directory.
            make_own_dir(folder)
        make_secret(storage_dir)
        (storage_dir / "logs").mkdir(exist_ok=True)
        if not configuration.database_url:
            prepare_postgres(storage_dir)
        if not configuration.redis_url:
            prepare_valkey(storage_dir)
        write_private(runtime_dir(storage_dir) / "manager.conf", supervisor_configuration(configuration))
    except OSError as error:
        raise ConfigurationError(f"the start cannot be prepared: {error}; mend that and start again") from None
    # A relative STORAGE_DIR starts at this process's working directory, but the programs run in another directory.
    os.environ["STORAGE_DIR"] = str(storage_dir)
    os.environ["TMPDIR"] = str(scratch_dir(storage_dir))  # The next start removes what killed programs leave.
    # By default, glibc gives threads separate arenas, which need more memory. Each volume has threads of its own.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
