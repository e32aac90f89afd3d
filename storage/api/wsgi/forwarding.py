"""The header fields in which proxies describe a request. Only proxies in TRUSTED_PROXIES are believed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from storage.conf import configuration

PEER = "occ.peer"  # the environ's key for the address of the proxy that sent a request
SCHEMES = ("http", "https")


@lru_cache(maxsize=1024)
def is_trusted(address: str, proxies: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    """True if the address is that of a trusted proxy."""
    if not proxies:
        return False
    try:
        peer = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # A server that listens on :: sees an IPv4 client at an IPv6 address such as ::ffff:192.0.2.1.
    if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return any(peer in network for network in proxies)


class Forwarded:
    """WSGI middleware: if a trusted proxy sent the request, the proxy's header fields replace client, scheme and host.

    The fields are X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host. The last entry of a list is what the proxy
    itself has seen. The client is the last address in X-Forwarded-For that is no trusted proxy. The client may have
    invented the addresses before its own.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR", "")
        proxies = configuration().trusted_proxies
        if is_trusted(peer, proxies):
            environ[PEER] = peer
            environ["REMOTE_ADDR"] = _client(environ.get("HTTP_X_FORWARDED_FOR", ""), peer, proxies)
            if (scheme := _last(environ.get("HTTP_X_FORWARDED_PROTO", "")).lower()) in SCHEMES:
                environ["wsgi.url_scheme"] = scheme
            if host := _last(environ.get("HTTP_X_FORWARDED_HOST", "")):
                environ["HTTP_HOST"] = host
        return self._application(environ, start_response)


def _client(field: str, peer: str, proxies: tuple[IPv4Network | IPv6Network, ...]) -> str:
    client = peer
    for hop in reversed(field.split(",")):
        address = _without_port(hop.strip())
        if address is None:
            return client  # If an address cannot be read, the addresses before it are not believed.
        client = address
        if not is_trusted(client, proxies):
            return client
    return client


def _without_port(hop: str) -> str | None:
    text = hop.partition("]")[0].removeprefix("[") if hop.startswith("[") else hop
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _last(field: str) -> str:
    return field.rpartition(",")[2].strip()
