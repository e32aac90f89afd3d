from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from storage.accounts import keys
from storage.conf import configuration
from storage.management.operation import OperatorCommand, table
from storage.models import NOBODY, Key, KeyLimit, Scope, clock


class Command(OperatorCommand):
    help = "Creates, lists, rotates and revokes the keys that clients show where AUTH_REQUIRED is true."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="create a key, and print its secret: it is shown this once")
        create.add_argument("owner", metavar="OWNER", help="the user who owns the files; made if there is none")
        create.add_argument("--name", default="", help="the person or program that gets the key")
        create.add_argument("--scope", action="append", choices=Scope.values, help=f"may be repeated; {_usual()}")
        create.add_argument("--bucket", default="", help="the only bucket that the key opens, by the S3 door")
        create.add_argument("--prefix", default="", help="the beginning of the keys of objects that it opens there")
        create.add_argument("--days", type=int, metavar="N", help="the key expires after N days; by default never")
        verbs.add_parser("list", help="list the keys, without their secrets")
        rotate = verbs.add_parser("rotate", help="give a key a new secret, and print it")
        revoke = verbs.add_parser("revoke", help="make a key open nothing any more")
        for verb in (rotate, revoke):
            verb.add_argument("key_id", metavar="KEY_ID")

    def act(self, options: Mapping[str, Any]) -> None:
        verbs: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "create": self._create,
            "list": self._list,
            "rotate": self._rotate,
            "revoke": self._revoke,
        }
        verbs[options["verb"]](options)

    def _create(self, options: Mapping[str, Any]) -> None:
        days = options["days"]
        if days is not None and not 1 <= days <= 36500:
            raise CommandError("--days is from 1 to 36500")
        expires_at = None if days is None else clock.now() + timedelta(days=days)
        scopes = [Scope(scope) for scope in options["scope"] or keys.USUAL]
        with transaction.atomic():  # A key that is refused leaves no user behind.
            owner = _owner(options["owner"])
            limit = KeyLimit(options["bucket"], options["prefix"]) if options["bucket"] or options["prefix"] else None
            new = keys.create(owner, scopes=scopes, name=options["name"], expires_at=expires_at, limit=limit)
        self._show(new)

    def _list(self, options: Mapping[str, Any]) -> None:
        rows: list[tuple[object, ...]] = [("key", "owner", "name", "scopes", "opens", "last used", "state")]
        now = clock.now()
        for key in Key.objects.select_related("owner"):
            used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
            opens = f"{key.bucket}/{key.prefix}" if key.bucket else "all"
            rows.append((key.pk, key.owner.username, key.name, key.scopes, opens, used, key.state(now)))
        for line in table(rows):
            self.stdout.write(line)

    def _rotate(self, options: Mapping[str, Any]) -> None:
        self._show(keys.rotate(options["key_id"]))

    def _revoke(self, options: Mapping[str, Any]) -> None:
        keys.revoke(options["key_id"])
        self.stdout.write(f"{options['key_id']} opens nothing any more, within {keys.GOOD_SECONDS:.0f} seconds")

    def _show(self, new: keys.NewKey) -> None:
        self.stdout.write(f"key     {new.key.pk}\nsecret  {new.secret}\n")
        self.stdout.write("The secret is shown this once. Use both like a name and a password:")
        self.stdout.write(f"  curl -u {new.key.pk}:{new.secret} http://localhost:{configuration().port}/files")


def _usual() -> str:
    return "by default " + ", ".join(keys.USUAL)


def _owner(username: str) -> User:
    """The user of this name, made without a password if there is no such user.

    Raises:
        CommandError: the user may have no key: it is inactive, or it is ``nobody``, the owner while keys are off.
    """
    if username != NOBODY:
        owner = User.objects.filter(username=username).first() or User(username=username, password="!")  # noqa: S106
        try:
            owner.clean_fields(exclude=["password"])
        except ValidationError as error:
            raise CommandError(f"the user '{username}': {' '.join(error.messages)}") from None
        owner.save()
        if owner.is_active:
            return owner
    raise CommandError(f"the user {username} may have no key")
