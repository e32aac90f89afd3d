"""A browser without scripts, for tests of the console."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

from tests.support.api import WholeClient

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
OWN_PAGE = {**BROWSER, "Origin": "http://testserver"}
Page = Callable[..., Any]


class Browser(WholeClient):
    """A client that keeps cookies, follows no redirect, and sends forms with the token of the last page."""

    token = ""

    def request(self, **request: Any) -> Any:
        response = super().request(**request)
        for name, morsel in response.cookies.items():
            self.cookies[name] = morsel
        found = re.search(
            r'name="csrfmiddlewaretoken" value="(\w+)"', getattr(response, "content", b"").decode("latin-1")
        )
        if found:
            self.token = found[1]
        return response

    def open(self, address: str, status: int = 200, **headers: str) -> str:
        """Open a page, and return its HTML."""
        response = self.get(address, headers={**BROWSER, **headers})
        assert response.status_code == status, (address, response.status_code, response.headers, response.content[:500])
        return str(response.content.decode())

    def submit(self, address: str, status: int = 303, **fields: Any) -> Any:
        """Send a form as a browser does, with the token of the last page that had one."""
        data = {"csrfmiddlewaretoken": self.token, **fields}
        response = self.post(address, data, headers=OWN_PAGE)
        assert response.status_code == status, (address, response.status_code, response.content[:500])
        return response


def seen(text: str) -> str:
    """The text of a page without its markup."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text)))


@pytest.fixture
def page(workers: Any) -> Page:
    """Open a page in a browser that has no session."""
    return Browser().open
