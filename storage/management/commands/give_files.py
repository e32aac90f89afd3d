from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser

from storage.management.operation import OperatorCommand
from storage.models import nobody
from storage.services import catalogue, objects


class Command(OperatorCommand):
    help = "Gives a user the files and the buckets that were made while keys were off."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("owner", metavar="OWNER", help="the user who gets them")

    def act(self, options: Mapping[str, Any]) -> None:
        owner = User.objects.filter(username=options["owner"], is_active=True).exclude(pk=nobody().pk).first()
        if owner is None:
            raise CommandError(f"there is no active user {options['owner']}")
        files, buckets = catalogue.give_all(nobody(), owner), objects.give_buckets(nobody(), owner)
        self.stdout.write(f"{files} files and {buckets} buckets belong to {owner.username} now")
