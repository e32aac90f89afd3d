"""The proxies that are trusted, and the header fields that are accepted from them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from storage.api.wsgi.forwarding import PEER, Forwarded, is_trusted
from storage.conf import Configuration
from storage.exceptions import ConfigurationError


def proxies(setting: str) -> Any:
    return Configuration.from_environment({"TRUSTED_PROXIES": setting}).trusted_proxies


def seen(settings: Any, setting: str, peer: str = "10.0.0.1", **fields: str) -> Any:
    """The WSGI environ that ``Forwarded`` passes to the application."""
    settings.OCC = dataclasses.replace(settings.OCC, trusted_proxies=proxies(setting))
    environ: Any = {"REMOTE_ADDR": peer, "HTTP_HOST": "inner", "wsgi.url_scheme": "http"}
    environ |= {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in fields.items()}
    Forwarded(lambda environ, _: [])(environ, lambda *_: lambda _: None)
    return environ


@pytest.mark.parametrize(
    ("setting", "address", "trusted"),
    [
        ("", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("10.0.0.0/8, 2001:db8::/32", "10.9.9.9", True),
        ("10.0.0.0/8, 2001:db8::/32", "2001:db8::5", True),
        ("10.0.0.0/8, 2001:db8::/32", "2001:db9::5", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("*", "203.0.113.1", True),
        ("*", "::1", True),
        ("*", "not an address", False),
    ],
)
def test_addresses_and_networks_are_trusted(setting: str, address: str, trusted: bool) -> None:
    assert is_trusted(address, proxies(setting)) is trusted


@pytest.mark.parametrize("setting", ["nginx", "10.0.0.1/8", "10.0.0.0/40", "1.2.3"])
def test_a_setting_that_names_no_network_is_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="TRUSTED_PROXIES"):
        proxies(setting)


def test_nobody_is_believed_by_default(settings: Any) -> None:
    environ = seen(settings, "", **{"for": "192.0.2.1", "proto": "https", "host": "evil"})
    assert (environ["REMOTE_ADDR"], environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == ("10.0.0.1", "inner", "http")
    assert PEER not in environ


def test_a_trusted_proxy_says_who_the_client_is_and_what_it_asked_for(settings: Any) -> None:
    environ = seen(settings, "10.0.0.0/8", **{"for": "192.0.2.1", "proto": "https", "host": "occ.example"})
    assert (environ["REMOTE_ADDR"], environ[PEER]) == ("192.0.2.1", "10.0.0.1")
    assert (environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == ("occ.example", "https")


@pytest.mark.parametrize(
    ("field", "client"),
    [
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.7", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1:4711,10.0.0.7:80", "192.0.2.1"),
        ("6.6.6.6, [2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("6.6.6.6, garbage, 10.0.0.7", "10.0.0.7"),
        ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
        ("", "10.0.0.1"),
        ("<script>", "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(settings: Any, field: str, client: str) -> None:
    assert seen(settings, "10.0.0.0/8", **{"for": field})["REMOTE_ADDR"] == client


def test_of_lists_the_proxys_own_entry_counts(settings: Any) -> None:
    environ = seen(settings, "*", proto="http, https", host="evil, occ.example")
    assert (environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == ("occ.example", "https")
    assert seen(settings, "*", proto="javascript")["wsgi.url_scheme"] == "http"
