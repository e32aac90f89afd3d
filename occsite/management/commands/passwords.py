import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from occsite.launch.passwords import make_passwords


class Command(BaseCommand):
    help = "Writes the passwords of PostgreSQL and Redis into files, for databases in containers of their own."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, folder: Path, **options: Any) -> None:
        make_passwords(folder, os.environ)
