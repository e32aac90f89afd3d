from typing import Any

from django.core.management.base import BaseCommand

from occsite.launch.preparation import prepare
from occsite.launch.state import local_url
from storage.conf import configuration


class Command(BaseCommand):
    help = "Waits for the databases, migrates them, and makes the nodes that the environment asks for. Safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        if administrator := prepare(configuration()):
            conf = configuration()
            self.stdout.write(f"Administration: {local_url(conf.host, conf.port)}/admin/ {administrator}")
