"""Uploads in the console whose line is cut, whose page is closed, or that are paused."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.browser.visitor import DESKTOP, PATIENCE, Visitor


class Interruptions(Visitor):
    """The part of a visit in which uploads are interrupted."""

    def survive_a_lost_line(self, file: Path) -> None:
        """Cut the line during an upload, and mend it: the page goes on by itself.

        A small file is sent again from its beginning; a large file is sent on from where the line was cut.
        """
        with self.page("lost line", viewport=DESKTOP, base_url=self.line.url) as page:
            page.goto("/")
            self.line.cut_after(min(file.stat().st_size // 2, 3 << 20))
            page.set_input_files("#pick-files", file)
            stage = page.locator(".upload [data-part=stage]")
            expect(stage).to_contain_text("The line is down")
            self.line.mend()
            expect(stage).to_contain_text("Done")
            expect(page.locator("#rows input[name=item]")).to_have_count(1)
            self._download(page, file)
        self._forgive("lost line")
        self._empty()
        self.steps[-1] = "lost line"

    def go_on_after_the_page_was_closed(self) -> None:
        """Kill the network in mid-file, close the page, open it again, choose the file again, and compare."""
        file = self.folder / "resumed" / "film.bin"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(os.urandom(40 << 20))
        context = self.browser.new_context(base_url=self.line.url, accept_downloads=True, viewport=DESKTOP)
        context.set_default_timeout(PATIENCE)
        first = context.new_page()
        first.goto("/")
        self.line.cut_after(25 << 20)
        first.set_input_files("#pick-files", file)
        expect(first.locator(".upload [data-part=stage]")).to_contain_text("The line is down")
        first.close()
        self.line.mend()
        sent = self.line.sent
        page = context.new_page()
        self._listen(page, "resumed")
        page.goto("/")
        stage = page.locator(".upload [data-part=stage]")
        expect(stage).to_contain_text("Not finished")
        self.audit(page, "unfinished")
        page.screenshot(path=self.folder / "shots" / "unfinished 1280 light.png")
        self._choose_again(page, self.folder / "archive.bin")
        expect(stage).to_contain_text("another file")
        self._choose_again(page, file)
        expect(stage).to_contain_text("Done")
        self._download(page, file)
        assert self.line.sent - sent < 35 << 20, "the beginning was not sent again"
        assert page.evaluate("localStorage.getItem('occ.uploads')") == "{}"
        context.close()
        self._forgive("resumed")
        self._empty()
        self.steps[-1] = "resumed"

    def _choose_again(self, page: Page, file: Path) -> None:
        with page.expect_file_chooser() as chooser:
            page.get_by_label("Choose the file: film.bin").click()
        chooser.value.set_files(file)

    def pause_and_cancel(self) -> None:
        """With the keyboard, pause an upload, go on, pause again, and cancel it. Then try the upload again."""
        file = self.folder / "resumed" / "film.bin"
        with self.page("pause", viewport=DESKTOP, base_url=self.line.url) as page:
            page.goto("/")
            self.line.slow_down(8 << 20)
            page.set_input_files("#pick-files", file)
            stage = page.locator(".upload [data-part=stage]")
            expect(stage).to_contain_text("left")
            page.get_by_label("Pause: film.bin").press("Enter")
            expect(stage).to_contain_text("Paused")
            page.screenshot(path=self.folder / "shots" / "paused 1280 light.png")
            self.audit(page, "paused")
            expect(page.get_by_label("Go on: film.bin")).to_be_focused()
            page.keyboard.press("Enter")
            expect(stage).to_contain_text("Sending")
            page.get_by_label("Pause: film.bin").press("Enter")
            expect(stage).to_contain_text("Paused")
            page.get_by_label("Cancel: film.bin").press("Enter")
            expect(stage).to_contain_text("Cancelled")
            page.wait_for_function("async () => !(await (await fetch('/uploads/')).json()).uploads.length")
            page.get_by_label("Try again: film.bin").click()
            expect(stage).to_contain_text("left")
            self.line.slow_down(0)
            expect(stage).to_contain_text("Done")
        self._forgive("pause")
        self._empty()
        self.steps.append("paused")

    def try_again_after_a_failure(self, file: Path) -> None:
        """Tell the page that the service could not store an upload. The next attempt is another upload."""
        failed: list[str] = []

        def answer(route: Route) -> None:
            address = route.request.url
            if route.request.method != "GET" or address.endswith("/") or failed not in ([], [address]):
                route.continue_()
                return
            failed[:] = [address]
            route.fulfill(json={"stage": "failed", "error": {"detail": "a disk is broken"}})

        with self.page("not stored", viewport=DESKTOP) as page:
            page.route("**/uploads/*", answer)
            page.goto("/")
            page.set_input_files("#pick-files", file)
            stage = page.locator(".upload [data-part=stage]")
            expect(stage).to_contain_text("could not be stored: a disk is broken")
            page.get_by_label(f"Try again: {file.name}").click()
            expect(stage).to_contain_text("Done")
            assert page.evaluate("localStorage.getItem('occ.uploads')") == "{}"
        self._empty()
        self.steps.append("tried again")
