import os
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from occsite.launch.programs import commands
from occsite.launch.secret import require_secret
from occsite.signature import PROGRAM
from storage.conf import configuration


class Command(BaseCommand):
    help = "Becomes one program of the system, on databases that `prepare` has seen: for a container of its own."
    requires_system_checks = ()  # The program runs Django's checks itself.

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("program", choices=commands(configuration()))

    def handle(self, *args: Any, program: str, **options: Any) -> None:
        require_secret(configuration())
        argv = commands(configuration())[program]
        os.environ[PROGRAM] = program
        os.execv(argv[0], argv)  # noqa: S606
