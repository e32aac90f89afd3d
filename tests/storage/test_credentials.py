"""Secrets from variables and from files, and secrets that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.conf import Configuration
from storage.credentials import credential, url_with_password
from storage.exceptions import ConfigurationError

LONG = "0123456789abcdefghijklmnopqrstuv"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{LONG}\n")
    return path


def test_a_secret_may_be_in_a_file(file: Path) -> None:
    assert credential({"X_FILE": str(file)}, "X") == LONG
    assert credential({"X": "value"}, "X") == "value"
    assert credential({"X": "", "X_FILE": ""}, "X") is None
    assert Configuration.from_environment({"SECRET_KEY_FILE": str(file)}).secret_key == LONG


def test_a_file_that_gives_no_secret_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="X and X_FILE are both set"):
        credential({"X": "value", "X_FILE": str(file)}, "X")
    with pytest.raises(ConfigurationError, match=r"X_FILE=.* cannot be read"):
        credential({"X_FILE": str(tmp_path / "missing")}, "X")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"X_FILE=.* cannot be read"):
        credential({"X_FILE": str(tmp_path / "binary")}, "X")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty"):
        credential({"X_FILE": str(tmp_path / "empty")}, "X")


@pytest.mark.parametrize("key", ["secret", "changeme", "a" * 64, "abab" * 16, LONG[:-1]])
def test_a_key_that_can_be_guessed_is_refused_outside_debug_mode(key: str) -> None:
    with pytest.raises(ConfigurationError, match="SECRET_KEY can be guessed") as refused:
        Configuration.from_environment({"SECRET_KEY": key})
    assert key not in str(refused.value).replace("SECRET_KEY", "")
    assert Configuration.from_environment({"SECRET_KEY": key, "DEBUG": "true"}).secret_key == key


def test_a_configuration_that_is_printed_shows_no_secret(file: Path) -> None:
    environment = {"SECRET_KEY": LONG, "DATABASE_URL": "postgres://occ:hidden@db/occ", "REDIS_URL": "redis://:hidden@r"}
    assert LONG not in repr(Configuration.from_environment(environment))
    assert "hidden" not in repr(Configuration.from_environment(environment))


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("postgres://occ@db:5432/occ", "postgres://occ:p%40%2F%3A@db:5432/occ"),
        ("postgres://occ:own@db/occ", "postgres://occ:own@db/occ"),
        ("redis://redis:6379/0", "redis://:p%40%2F%3A@redis:6379/0"),
        ("redis://[::1", "redis://[::1"),
    ],
)
def test_a_url_without_a_password_gets_it(url: str, whole: str) -> None:
    assert url_with_password({"URL": url, "PASSWORD": "p@/:"}, "URL", "PASSWORD") == whole
    assert url_with_password({"URL": url}, "URL", "PASSWORD") == url
    assert url_with_password({"PASSWORD": "p"}, "URL", "PASSWORD") is None


def test_the_passwords_of_both_databases_may_be_in_files(file: Path) -> None:
    found = Configuration.from_environment(
        {
            "DATABASE_URL": "postgres://occ@postgres/occ",
            "POSTGRES_PASSWORD_FILE": str(file),
            "REDIS_URL": "redis://occ@redis/0",
            "REDIS_PASSWORD_FILE": str(file),
        }
    )
    assert found.database_url == f"postgres://occ:{LONG}@postgres/occ"
    assert found.redis_url == f"redis://occ:{LONG}@redis/0"
