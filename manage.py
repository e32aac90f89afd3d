#!/usr/bin/env python3
"""Django's command line for OCC Storage: ``manage.py serve`` runs the whole system."""

import os
import signal
import sys
from typing import NoReturn

# The handler is set before Django is loaded, which takes a second. The first process of a container ignores signals
# that have no handler.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def refuse(words: str) -> NoReturn:
    """End with a line on the terminal. The doctor has a status of its own for "it could not run"."""
    sys.stderr.write(f"{words}\n")
    sys.exit(2 if sys.argv[1:2] == ["doctor"] else 1)


def main() -> None:
    if sys.argv[1:] in (["version"], ["--version"]):  # Django would print its own version.
        from storage.conf import VERSION

        sys.stdout.write(f"OCC Storage {VERSION}\n")
        return
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")
    try:
        from django.core.management import execute_from_command_line
        from django.db import OperationalError

        from storage.exceptions import ConfigurationError

        try:
            execute_from_command_line(sys.argv)
        except ConfigurationError as error:
            refuse(f"occ-storage: {error}")
        except OperationalError as error:
            sys.exit(f"occ-storage: PostgreSQL does not answer; does the system run? {' '.join(str(error).split())}")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in ("occsite", "storage", "sketches"):
            raise
        sys.exit(f"occ-storage: the package {package} is not installed; run `make run`, or install requirements.txt")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
