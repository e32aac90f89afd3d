"""What every visit of the console does: open pages, listen to what goes wrong on them, download, clean up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.line import Line

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 860}
PATIENCE = 60_000  # ms: other tests may use the processor too


class Visitor:
    """One visit, and what went wrong in it."""

    def __init__(self, browser: Browser, url: str, folder: Path) -> None:
        self.browser, self.url, self.folder = browser, url, folder
        self.line = Line(urlsplit(url).port or 80)
        self.findings: list[str] = []
        self.steps: list[str] = []
        self.cookies: list[Any] = []  # The cookies of a session, for the pages that are opened from now on.
        (folder / "shots").mkdir(exist_ok=True)

    @contextmanager
    def page(self, name: str, **options: Any) -> Iterator[Page]:
        context = self.browser.new_context(**{"base_url": self.url, "accept_downloads": True, **options})
        context.set_default_timeout(PATIENCE)
        context.add_cookies(self.cookies)
        page = context.new_page()
        self._listen(page, name)
        yield page
        context.close()

    def _listen(self, page: Page, name: str) -> None:
        page.on("console", lambda message: self._heard(name, message.type, message.text))
        page.on("pageerror", lambda error: self.findings.append(f"{name}: {error}"))

    def _heard(self, name: str, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.findings.append(f"{name}: {kind}: {text}")

    def _download(self, page: Page, file: Path) -> None:
        with page.expect_download() as began:
            page.get_by_label(f"Download {file.name}").click()
        assert began.value.path().read_bytes() == file.read_bytes()
        assert began.value.suggested_filename == file.name
        self.steps.append("downloaded")

    def _empty(self) -> None:
        """Delete every file, by the API."""
        with self.page("empty") as page:
            while files := page.request.get("/files").json()["files"]:
                for file in files:
                    page.request.delete(f"/files/{file['file_hash']}?file_name={quote(file['file_name'], safe='')}")

    def _forgive(self, name: str) -> None:
        """Drop the findings about a lost connection: the browser's console reports the loss, as it should."""
        lost = (f"{name}: error: Failed to load", f"{name}: warning: Failed to load")
        self.findings = [finding for finding in self.findings if not finding.startswith(lost)]

    def audit(self, page: Page, name: str) -> None:
        for violation in Axe().run(page).response["violations"]:
            targets = [node["target"] for node in violation["nodes"]][:3]
            self.findings.append(f"{name}: axe: {violation['id']} {targets}")
