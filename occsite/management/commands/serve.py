import sys
from typing import Any

from django.core.management.base import BaseCommand

from occsite.launch.start import serve
from storage.conf import configuration


class Command(BaseCommand):
    help = "Runs the whole system in the foreground: databases, API and workers."
    requires_system_checks = ()  # There is no database yet; ``boot`` runs Django's checks.

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(serve(configuration()))
