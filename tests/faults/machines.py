"""A machine with one small file system for everything: the code, ``/tmp``, STORAGE_DIR and the terminal's output.

The file system is a tmpfs, and the run has a mount namespace of its own. Memory, processes and the network are those of
the machine on which the tests run.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from occsite.launch.process import dying_with_parent
from occsite.launch.runtime import runtime_dir, scratch_dir
from tests.faults.disks import CannotMount, mount, unmount
from tests.support.system import PROJECT, System, children_of

SIZE = 1300 << 20  # The size of the file system in bytes.
_ENTER = 'mount --bind "$0/tmp" /tmp && mount --bind "$0/tmp" /var/tmp && cd "$0/clone" && exec "$@"'
_CLONED = ("manage.py", "occsite", "storage", "sketches")


class Machine(System):
    """An installation that has its code, its temporary files and its state on one small file system."""

    def __init__(self, root: Path, project: Path = PROJECT, **environment: str) -> None:
        super().__init__(root / "state", **environment)
        self.root = root
        for name in ("tmp", "clone"):
            (root / name).mkdir()
        for name in _CLONED:
            copy = shutil.copytree if (project / name).is_dir() else shutil.copy
            copy(project / name, root / "clone" / name)

    def serve(self, **environment: str) -> subprocess.Popen[bytes]:
        entered = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, str(self.root)]
        argv = [*entered, sys.executable, "manage.py", "serve"]
        with self.output_path.open("ab") as output:
            return subprocess.Popen(
                dying_with_parent(signal.SIGKILL, argv),
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def runtime_dir(self) -> Path:
        """The path at which a process outside the mount namespace reaches the directory of the sockets."""
        return Path(f"/proc/{self.pid}/root{runtime_dir(self.storage_dir)}")

    def programs(self) -> dict[int, str]:
        """Map the pid of each process that the manager has started to its command line."""
        found = {}
        for pid in children_of(self.pid):
            with suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        return found

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill the file system with a file during the ``with`` block, as another program could.

        ``top_up`` fills the file system again after bytes were freed.
        """
        try:
            self.top_up()
            yield
        finally:
            (self.root / "filler").unlink()

    def top_up(self) -> None:
        """Use every byte that is free now for the file."""
        zeros = bytes(1 << 20)
        with suppress(OSError), (self.root / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(zeros)


@contextmanager
def machine(project: Path = PROJECT, **environment: str) -> Iterator[Machine]:
    """Make a machine that is not started yet. In the end its programs are stopped, and its file system is unmounted.

    Raises:
        CannotMount: this process is not allowed to mount file systems.
    """
    if os.geteuid() != 0:
        raise CannotMount("only root may mount file systems")
    # The directory is not below /tmp, because the machine mounts a directory of its own over /tmp.
    root = Path(tempfile.mkdtemp(prefix="occ-machine-", dir="/run"))
    try:
        mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(root))
        found = Machine(root, project, **environment)
        try:
            yield found
        finally:
            found.stop()
    finally:
        unmount(root)
        root.rmdir()
        shutil.rmtree(scratch_dir(root / "state"), ignore_errors=True)
