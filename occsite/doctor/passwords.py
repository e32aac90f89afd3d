"""The checks of the user, of SECRET_KEY and of passwords."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection

from occsite.doctor.findings import Finding, ok, problem, warning
from occsite.launch.state import is_loopback
from storage.conf import configuration
from storage.credentials import can_be_guessed

WELL_KNOWN = ("", "occ", "postgres", "admin", "password", "secret", "changeme", "change-me")
ADMINISTRATORS = 5  # To check a password takes a third of a second, so only the first administrators are looked at.
GUESSES = ("admin", "password", "occ")


def user_is_the_owner() -> Iterator[Finding]:
    folder = configuration().storage_dir
    try:
        owner = folder.stat().st_uid
    except OSError as error:
        yield problem(f"STORAGE_DIR={folder}: {error.strerror}", "set the STORAGE_DIR of the service")
        return
    if owner == os.geteuid():
        yield ok(f"run by {_name(owner)}, who owns STORAGE_DIR")
    else:
        yield problem(
            f"STORAGE_DIR belongs to {_name(owner)}, and this is run by {_name(os.geteuid())}",
            f"run commands as {_name(owner)}: the service cannot change files that another user makes",
        )


def passwords_are_not_the_default() -> Iterator[Finding]:
    findings = [*_secret_key(), *_database(), *_redis()]
    yield from findings
    if not findings:
        yield ok("SECRET_KEY is long, and the databases have no well-known passwords")


def _secret_key() -> Iterator[Finding]:
    if can_be_guessed(str(settings.SECRET_KEY)):
        yield problem(
            "SECRET_KEY can be guessed, and with it the sessions of the admin pages",
            "take a long random one, or unset it: the service then makes its own",
        )


def _database() -> Iterator[Finding]:
    password, host = str(connection.settings_dict["PASSWORD"]), str(connection.settings_dict["HOST"])
    if configuration().database_url and not host.startswith("/") and password in WELL_KNOWN:
        yield warning(
            "the password of PostgreSQL is the default, or none",
            "change it with ALTER ROLE, and in DATABASE_URL (compose: POSTGRES_PASSWORD)",
        )


def _redis() -> Iterator[Finding]:
    url = urlsplit(settings.REDIS_URL)
    if url.scheme != "unix" and not is_loopback(url.hostname or "") and (url.password or "") in WELL_KNOWN:
        yield warning(
            "Redis asks for no password, or for the default one",
            "set requirepass, and the password in REDIS_URL; or let only the service reach it",
        )


def administrators_have_passwords_of_their_own() -> Iterator[Finding]:
    guessed = False
    users = get_user_model()._default_manager.filter(is_superuser=True, is_active=True).order_by("pk")
    for user in users[:ADMINISTRATORS]:
        if any(user.check_password(guess) for guess in {*GUESSES, user.get_username()}):
            guessed = True
            yield problem(
                f"the password of {user.get_username()} can be guessed",
                f"run `manage.py changepassword {user.get_username()}`",
            )
    if not guessed:
        yield ok("no administrator has a well-known password")


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
