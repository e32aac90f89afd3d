from typing import Any

from django.core.management.base import BaseCommand

from occsite.launch.boot import boot
from storage.conf import configuration


class Command(BaseCommand):
    help = "Started by serve: prepares the databases and starts the programs that need them."

    def handle(self, *args: Any, **options: Any) -> None:
        boot(configuration())
