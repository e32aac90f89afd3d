#!/usr/bin/env python3
"""Django's command line for OCC Storage: ``manage.py serve`` runs the whole system."""

import os
import sys

from django.core.management import execute_from_command_line

from storage.exceptions import ConfigurationError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")
    try:
        execute_from_command_line(sys.argv)
    except ConfigurationError as error:
        sys.exit(f"occ-storage: {error}")


if __name__ == "__main__":
    main()
