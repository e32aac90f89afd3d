"""Lines on the terminal: one for each trouble that begins or ends. Most troubles are those that /health reports."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Set
from typing import Any
from urllib.parse import urlsplit

INTERVAL = 2.0  # seconds between two looks
PATIENCE = 8.0  # seconds that /health may take to answer
SILENCE = "api"  # the key of the trouble that /health does not answer
# The manager has said that a program has ended, so the trouble that follows from its end is not announced as well.
# EXPLAINED maps a program to the key under which /health reports the trouble that follows from its end.
EXPLAINED = {"api": SILENCE, "postgres": "postgresql", "valkey": "Redis does not answer, or refuses"}
_NUMBER = re.compile(r"\b\d[\d.,]*\b")


class Watch:
    """Compares each look at /health with the look before.

    A trouble is announced when two looks in a row find it, and is over when two looks in a row do not find it, so that
    a trouble that comes and goes does not fill the terminal.
    """

    def __init__(self, url: str, announce: Callable[[str], None], down: Callable[[], Set[str]]) -> None:
        """
        Args:
            url: where the API listens.
            announce: takes a line for the terminal.
            down: the programs that have ended and do not run again yet.
        """
        self.url = url
        self.announce = announce
        self.down = down
        self.shown: dict[str, str] = {}
        self._last: dict[str, str] = {}

    def start(self) -> threading.Event:
        """Look at /health every two seconds in a thread of its own, until the returned event is set."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(INTERVAL):
                self.see(ask(self.url))

        threading.Thread(target=look, name="watch", daemon=True).start()
        return ended

    def see(self, document: dict[str, Any] | None) -> None:
        """Take one look's result: the document of /health, or None if there was no answer."""
        if document is None:
            # Without a document, the other troubles are assumed to go on.
            found = {**self.shown, SILENCE: "the API does not answer; its log may say why"}
        else:
            found = troubles(document)
        for program in self.down():
            key = EXPLAINED.get(program, "")
            if key not in self.shown:
                found.pop(key, None)
        for key in [key for key in self.shown if key not in found and key not in self._last]:
            self.announce(f"over: {self.shown.pop(key)}")
        # While a part fails, a degraded part mostly has the same cause: a full disk makes every node full. So while a
        # part fails, only failing parts are announced.
        failing = (document or {}).get("failing")
        for key, words in found.items():
            if key in self._last and key not in self.shown and (not failing or key in failing):
                self.shown[key] = words
                self.announce(words)
        self._last = found


def troubles(document: dict[str, Any]) -> dict[str, str]:
    """The troubles in a document of /health: key → words. A key stays the same while numbers in the words change."""
    failing, degraded = document.get("failing") or {}, document.get("degraded") or []
    found = {str(part): _line(words) for part, words in failing.items()}
    for words in map(_line, degraded):
        found.setdefault(_NUMBER.sub("", words.partition(":")[0]), words)
    return found


def ask(url: str) -> dict[str, Any] | None:
    """The document of /health, whatever the status of the answer; None if /health answers with no document."""
    server = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        server.request("GET", "/health")
        document = json.loads(server.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        server.close()
    return document if isinstance(document, dict) else None


def _line(words: object) -> str:
    return " ".join(str(words).split())
