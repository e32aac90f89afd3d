from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError, CommandParser

from storage.accounts import quotas
from storage.accounts.quotas import Account
from storage.management.operation import OperatorCommand, table
from storage.models import nobody
from storage.plans import size

HEADER = ("owner", "files", "at most", "bytes", "at most")
NO_LIMIT = "-"


class Command(OperatorCommand):
    help = "Shows how much each owner has stored, and limits how much an owner may store."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("owner", metavar="OWNER", nargs="?", help="by default all owners are shown")
        parser.add_argument("--bytes", metavar="SIZE", help=f"such as 10GB or 1.5TiB; {quotas.NO_LIMIT} for no limit")
        parser.add_argument("--files", metavar="N", help=f"a number of files; {quotas.NO_LIMIT} for no limit")
        parser.add_argument("--none", action="store_true", help="remove both limits")

    def act(self, options: Mapping[str, Any]) -> None:
        given = {name: options[name] for name in ("bytes", "files") if options[name] is not None}
        if options["owner"] is None:
            if given or options["none"]:
                raise CommandError("whose quota? Name an OWNER")
            return self._show(quotas.accounts())
        if given and options["none"]:
            raise CommandError("--none removes both limits: use it alone")
        owner = _owner(options["owner"])
        if given or options["none"]:
            _change(owner, {name: quotas.parse(text, f"--{name}") for name, text in given.items()})
        return self._show([quotas.account(owner)])

    def _show(self, accounts: list[Account]) -> None:
        rows = [
            (
                account.owner.username,
                account.used.files,
                NO_LIMIT if account.max_files is None else account.max_files,
                size(account.used.bytes),
                NO_LIMIT if account.max_bytes is None else size(account.max_bytes),
            )
            for account in accounts
        ]
        for line in table([HEADER, *rows]):
            self.stdout.write(line)


def _owner(username: str) -> User:
    owner = nobody() if username == nobody().username else User.objects.filter(username=username).first()
    if owner is None:
        raise CommandError(f"there is no user {username}: manage.py keys create {username} makes one")
    return owner


def _change(owner: User, limits: Mapping[str, int | None]) -> None:
    """Change the limits that are named, and keep the other limit. Without any name, both limits are removed."""
    old = quotas.account(owner)
    limits = limits or {"bytes": None, "files": None}
    quotas.limit(
        owner,
        max_bytes=limits.get("bytes", old.max_bytes),
        max_files=limits.get("files", old.max_files),
    )
