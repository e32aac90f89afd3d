"""The secret of one installation, and the passwords that follow from it."""

from __future__ import annotations

import hashlib
import hmac
import os
import pwd
import secrets
from contextlib import suppress
from pathlib import Path

from occsite.launch.files import sync_directory
from storage.conf import Configuration
from storage.exceptions import ConfigurationError


def read_secret(storage_dir: Path) -> str | None:
    """The secret below ``storage_dir``, or None before the first start.

    Raises:
        ConfigurationError: the file is there but cannot be read.
    """
    try:
        return _path(storage_dir).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise ConfigurationError(f"{storage_dir} {_owners(storage_dir)}") from None
    except OSError as error:
        raise ConfigurationError(f"the secret cannot be read: {error}") from None


def _owners(storage_dir: Path) -> str:
    """The reason why the secret cannot be read, in words: usually another user owns the directory."""

    def name(uid: int) -> str:
        with suppress(KeyError):
            return pwd.getpwuid(uid).pw_name
        return str(uid)

    # If a directory above is closed to this user, the owner of ``storage_dir`` is unknown. The closed directory is then
    # taken to belong to the same user.
    for folder in (storage_dir, *storage_dir.parents):
        with suppress(OSError):
            owner = folder.stat().st_uid
            if owner != os.geteuid():
                return f"belongs to the user {name(owner)}, and this is run by {name(os.geteuid())}: be {name(owner)}"
            break
    return "has a secret that cannot be read: see the rights of the file"


def make_secret(storage_dir: Path) -> str:
    """The secret below ``storage_dir``, never overwritten. A missing secret is made, durable and with mode 0600.

    Raises:
        ConfigurationError: the secret cannot be read.
        OSError: the secret cannot be written.
    """
    if found := read_secret(storage_dir):
        return found
    secret = secrets.token_urlsafe(48)
    draft = storage_dir / f"secret.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # The link fails if another process was faster. A rename would replace the secret of that process.
            _path(storage_dir).hardlink_to(draft)
        except FileExistsError:
            return make_secret(storage_dir)
    finally:
        draft.unlink()
    sync_directory(storage_dir)
    return secret


def require_secret(configuration: Configuration) -> None:
    """Make sure that there is a secret: without one, no program of the system may start.

    Raises:
        ConfigurationError: SECRET_KEY is not set, and no start has made a secret in the state directory.
    """
    if not (configuration.secret_key or read_secret(configuration.storage_dir)):
        raise ConfigurationError("there is no secret yet: run `manage.py prepare` first, or set SECRET_KEY")


def derive(secret: str, purpose: str) -> str:
    """A password for one ``purpose``: the HMAC-SHA256 of ``purpose`` under ``secret``, as 64 hex digits."""
    return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def _path(storage_dir: Path) -> Path:
    return storage_dir / "secret"
