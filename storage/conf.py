"""The configuration: environment variables, their names and defaults as in the README."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from django.conf import settings

from storage.credentials import credential, secret_key, url_with_password
from storage.exceptions import ConfigurationError

T = TypeVar("T", bound=str)

VERSION = "0.1.0"
"""The version of OCC Storage: pyproject.toml and the image's label say the same."""

ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
MAX_TAU = 255
LARGEST_SKETCH = (512 << 20) - 72  # registers: with the header, this is the largest value that Redis holds, 512 MiB
MAX_CHUNK_SIZE = 64 << 20


@dataclass(frozen=True)
class Provider:
    """The OpenID provider with which people log in to the console.

    Attributes:
        issuer: the provider's name for itself, which is an address.
        client_id: the provider's name for this service.
        client_secret: the secret that the provider shares with this service.
        admin_group: the group whose people are admins; empty if admins are made in the administration.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    admin_group: str

    @property
    def host(self) -> str:
        """The host in the provider's address, which is shown to people as its name."""
        return urlsplit(self.issuer).hostname or self.issuer


@dataclass(frozen=True)
class Configuration:
    """The settings from the environment. Sizes are in bytes, times in seconds."""

    storage_dir: Path
    host: str
    port: int
    s3_port: int
    s3_domain: str
    debug: bool
    auth_required: bool
    rate_limit: str
    max_transfers_per_owner: int
    hsts_seconds: int
    security_contact: str
    num_nodes: int
    n_prime: int
    tau: int
    replication_factor: int
    chunk_size: int
    max_upload_size: int
    upload_wait: int
    stall_timeout: int
    resumable_upload_expires: int
    multipart_upload_expires: int
    reclaim_grace: int
    repair_delay: int
    audit_interval: int
    audit_rate: int
    census_interval: int
    audit_log_days: int
    ingest_workers: int
    node_volumes: Literal["file", "pack"]
    compress: bool
    log_to_stdout: bool
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    provider: Provider | None
    database_url: str | None = field(repr=False)
    redis_url: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    sentry_dsn: str | None = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Configuration:
        """Read and check the environment.

        Raises:
            ConfigurationError: a value is malformed, out of range, or contradicts another value.
        """
        read = _Reader(environment)
        storage_dir = environment.get("STORAGE_DIR") or "var/occ_storage"
        return cls(
            storage_dir=Path(storage_dir).absolute(),
            host=environment.get("HOST", "").strip().removeprefix("[").removesuffix("]") or "127.0.0.1",
            port=read.integer("PORT", 5000, 1, 65535),
            s3_port=read.integer("S3_PORT", 5005, 0, 65535),
            s3_domain=read.domain("S3_DOMAIN"),
            debug=read.boolean("DEBUG", False),
            auth_required=read.boolean("AUTH_REQUIRED", False),
            rate_limit=read.rate("RATE_LIMIT"),
            max_transfers_per_owner=read.integer("MAX_TRANSFERS_PER_OWNER", 0, 0, 100_000),
            hsts_seconds=read.integer("HSTS_SECONDS", 0, 0, 10**9),
            security_contact=read.address("SECURITY_CONTACT"),
            num_nodes=read.integer("NUM_NODES", 5, 1, 1000),
            n_prime=read.integer("N_PRIME", 10_000, 1, LARGEST_SKETCH),
            tau=read.integer("TAU", 10, 1, MAX_TAU),
            replication_factor=read.integer("REPLICATION_FACTOR", 3, 1, 1000),
            chunk_size=read.integer("CHUNK_SIZE", 262_144, 1024, MAX_CHUNK_SIZE),
            max_upload_size=read.integer("MAX_UPLOAD_SIZE", 5 << 30, 1, 1 << 50),
            upload_wait=read.integer("UPLOAD_WAIT", 60, 0, 3600),
            stall_timeout=read.integer("STALL_TIMEOUT", 30, 1, 3600),
            resumable_upload_expires=read.integer("RESUMABLE_UPLOAD_EXPIRES", 86400, 60, 7 * 86400),
            multipart_upload_expires=read.integer("MULTIPART_UPLOAD_EXPIRES", 7 * 86400, 60, 365 * 86400),
            reclaim_grace=read.integer("RECLAIM_GRACE", 600, 0, 10**9),
            repair_delay=read.integer("REPAIR_DELAY", 300, 0, 10**9),
            audit_interval=read.integer("AUDIT_INTERVAL", 7 * 86400, 0, 10**9),
            audit_rate=read.integer("AUDIT_RATE", 20 << 20, 1, 1 << 40),
            census_interval=read.integer("CENSUS_INTERVAL", 3600, 0, 10**9),
            audit_log_days=read.integer("AUDIT_LOG_DAYS", 90, 1, 36_500),
            ingest_workers=read.integer("INGEST_WORKERS", os.cpu_count() or 1, 1, 256),
            node_volumes=read.choice("NODE_VOLUMES", ("file", "pack")),
            compress=read.choice("COMPRESSION", ("off", "zstd")) == "zstd",
            log_to_stdout=read.choice("LOG_TO", ("files", "stdout")) == "stdout",
            trusted_proxies=read.networks("TRUSTED_PROXIES"),
            provider=read.provider(),
            database_url=url_with_password(environment, "DATABASE_URL", "POSTGRES_PASSWORD"),
            redis_url=url_with_password(environment, "REDIS_URL", "REDIS_PASSWORD"),
            secret_key=secret_key(environment, debug=read.boolean("DEBUG", False)),
            sentry_dsn=credential(environment, "SENTRY_DSN"),
        )

    @property
    def nodes_dir(self) -> Path:
        return self.storage_dir / "nodes"

    @property
    def staging_dir(self) -> Path:
        return self.storage_dir / "staging"


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self.environment.get(name, "").strip()
        if not text:
            return default
        try:
            value = int(text)
        except ValueError:
            raise ConfigurationError(f"{name}={text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ConfigurationError(f"{name}={value} is not between {low} and {high}")
        return value

    def choice(self, name: str, allowed: tuple[T, ...]) -> T:
        """The value of the variable, which is one of ``allowed``; the first of them is the default."""
        text = self.environment.get(name, "").strip().lower() or allowed[0]
        for value in allowed:
            if value == text:
                return value
        raise ConfigurationError(f"{name}={text!r} is none of {', '.join(allowed)}")

    def networks(self, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
        """Addresses and networks, separated by commas. ``*`` means all networks; the default is none."""
        found: list[IPv4Network | IPv6Network] = []
        for text in filter(None, map(str.strip, self.environment.get(name, "").split(","))):
            try:
                found += ANYWHERE if text == "*" else [ip_network(text)]
            except ValueError as error:
                raise ConfigurationError(f"{name}: {error}") from None
        return tuple(found)

    def rate(self, name: str) -> str:
        """A number of requests in a time, such as ``100/minute``; empty for no limit."""
        text = self.environment.get(name, "").strip().lower()
        if text and not re.fullmatch(r"[1-9][0-9]{0,6}/(second|minute|hour|day)", text):
            raise ConfigurationError(f"{name}={text!r} is not like 100/second, 100/minute, 100/hour or 100/day")
        return text

    def address(self, name: str) -> str:
        """An address at which people answer, such as ``mailto:`` or ``https:``; empty for none."""
        text = self.environment.get(name, "").strip()
        if text and not re.fullmatch(r"(mailto:|tel:|https://)[!-~]+", text):
            raise ConfigurationError(f"{name}={text!r} is not like mailto:security@example.org or https://example.org/")
        return text

    def provider(self) -> Provider | None:
        """The OpenID provider; None without OIDC_ISSUER."""
        names = ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_ADMIN_GROUP")
        issuer, client_id, admin_group = (self.environment.get(name, "").strip() for name in names)
        client_secret = credential(self.environment, "OIDC_CLIENT_SECRET")
        if not issuer:
            return None
        url = urlsplit(issuer)
        is_near = url.scheme == "http" and url.hostname in ("127.0.0.1", "::1", "localhost")
        if not url.hostname or not (url.scheme == "https" or is_near) or url.query or url.fragment:
            raise ConfigurationError(f"OIDC_ISSUER={issuer!r} is not like https://login.example.org")
        if not client_id or not client_secret:
            raise ConfigurationError("OIDC_ISSUER needs OIDC_CLIENT_ID and OIDC_CLIENT_SECRET")
        return Provider(issuer, client_id, client_secret, admin_group)

    def domain(self, name: str) -> str:
        """The name of a domain, in lower case; empty for none."""
        text = self.environment.get(name, "").strip().lower().strip(".")
        if text and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", text, re.ASCII):
            raise ConfigurationError(f"{name}={text!r} is not like s3.example.org")
        return text

    def boolean(self, name: str, default: bool) -> bool:
        text = self.environment.get(name, "").strip().lower()
        if not text:
            return default
        if text in ("1", "true", "yes", "on"):
            return True
        if text in ("0", "false", "no", "off"):
            return False
        raise ConfigurationError(f"{name}={text!r} is neither true nor false")


def configuration() -> Configuration:
    """The process's configuration, as the settings module read it."""
    found: Configuration = settings.OCC
    return found
