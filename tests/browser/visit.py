"""Visits the console with Chromium, and prints what it finds as JSON.

Playwright lives in a virtual environment of its own, so this program imports nothing of the project:

    python -m tests.browser.visit URL CHROMIUM FOLDER [PASSWORD]

If PASSWORD, the password of the user admin, is given, the program logs in and does nothing else. FOLDER has the files
that are uploaded; the screenshots go to FOLDER/shots.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 860}
LOOKS = ((DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark"))
PATIENCE = 60_000  # ms: other tests may use the processor too


class Visit:
    """One visit, and what went wrong in it."""

    def __init__(self, browser: Browser, url: str, folder: Path) -> None:
        self.browser, self.url, self.folder = browser, url, folder
        self.findings: list[str] = []
        self.steps: list[str] = []
        self.cookies: list[Any] = []  # of a session, for the pages that are opened from now on
        (folder / "shots").mkdir(exist_ok=True)

    @contextmanager
    def page(self, name: str, **options: Any) -> Iterator[Page]:
        context = self.browser.new_context(base_url=self.url, accept_downloads=True, **options)
        context.set_default_timeout(PATIENCE)
        context.add_cookies(self.cookies)
        page = context.new_page()
        page.on("console", lambda message: self._heard(name, message.type, message.text))
        page.on("pageerror", lambda error: self.findings.append(f"{name}: {error}"))
        yield page
        context.close()

    def _heard(self, name: str, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.findings.append(f"{name}: {kind}: {text}")

    # -- what a person does ----------------------------------------------------

    def upload_download_delete(self, files: list[Path]) -> None:
        """Drop files, watch them until they are stored, download one, share one, delete all."""
        with self.page("files", viewport=DESKTOP) as page:
            page.goto("/")
            expect(page.get_by_text("No files yet")).to_be_visible()
            self._drop(page, files)
            for file in files:
                item = page.locator(".upload", has_text=file.name)
                expect(item.locator("[data-part=stage]")).to_contain_text("Done", timeout=PATIENCE)
            expect(page.locator("#uploads-summary")).to_have_text("All uploads have ended")
            expect(page.locator("#rows tr")).to_have_count(len(files))
            self.steps.append("uploaded")
            self._download(page, files[0])
            self._share(page, files[0])
            self._search(page, files)
            self._rename(page, files[1])
            self._delete_all(page, len(files))

    def _drop(self, page: Page, files: list[Path]) -> None:
        """Drop files as a file manager does. The page asks for the bytes of the files, and the test answers."""
        page.route("**/dropped/*", lambda route: route.fulfill(path=self.folder / Path(route.request.url).name))
        transfer = page.evaluate_handle(
            """async (names) => {
                const transfer = new DataTransfer();
                for (const name of names) {
                    const answer = await fetch(`/dropped/${name}`);
                    transfer.items.add(new File([await answer.blob()], name));
                }
                return transfer;
            }""",
            [file.name for file in files],
        )
        page.dispatch_event("#drop", "dragenter", {"dataTransfer": transfer})
        expect(page.locator("#drop.over")).to_be_visible()
        page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})

    def _download(self, page: Page, file: Path) -> None:
        with page.expect_download() as began:
            page.get_by_label(f"Download {file.name}").click()
        assert began.value.path().read_bytes() == file.read_bytes()
        assert began.value.suggested_filename == file.name
        self.steps.append("downloaded")

    def _menu(self, page: Page, name: str, entry: str) -> None:
        page.get_by_label(f"More for {name}").click()
        page.locator("details.menu[open]").get_by_text(entry).click()

    def _share(self, page: Page, file: Path) -> None:
        self._menu(page, file.name, "Share…")
        page.locator("dialog").get_by_role("button", name="Make a link").click()
        address = page.locator("dialog .made code").inner_text()
        shared = page.request.get(address)
        assert shared.body() == file.read_bytes()
        self.audit(page, "share dialogue")
        page.locator("dialog").get_by_text("Close").click()
        expect(page.locator("dialog")).not_to_be_visible()
        self.steps.append("shared")

    def _search(self, page: Page, files: list[Path]) -> None:
        page.get_by_label("Search names").fill(files[0].name)
        expect(page.locator("#rows tr")).to_have_count(1)
        page.get_by_label("Search names").fill("")
        expect(page.locator("#rows tr")).to_have_count(len(files))
        self.steps.append("searched")

    def _rename(self, page: Page, file: Path) -> None:
        self._menu(page, file.name, "Rename…")
        field = page.locator("dialog").get_by_label("New name")
        field.fill("a/b")
        page.locator("dialog").get_by_role("button", name="Rename").click()
        expect(page.locator("dialog .error-text")).to_contain_text("no slash")
        field.fill("renamed.bin")
        page.locator("dialog").get_by_role("button", name="Rename").click()
        expect(page.locator("#rows").get_by_text("renamed.bin")).to_be_visible()
        self.steps.append("renamed")

    def _delete_all(self, page: Page, count: int) -> None:
        page.get_by_label("Mark all").check()
        expect(page.locator("#chosen output")).to_have_text(f"{count} files marked")
        page.get_by_role("button", name="Delete marked files…").click()
        expect(page.locator("dialog h1")).to_have_text(f"Delete {count} files?")
        page.locator("dialog").get_by_role("button", name="Delete", exact=True).click()
        expect(page.get_by_text("No files yet")).to_be_visible()
        expect(page.locator(".note.success")).to_contain_text(f"{count} files are deleted")
        self.steps.append("deleted")

    def upload_folder(self) -> None:
        """Choose a folder that has another folder in it."""
        folder = self.folder / "folder"
        (folder / "inner").mkdir(parents=True, exist_ok=True)
        for path in ("one.txt", "two.txt", "inner/three.txt"):
            (folder / path).write_text(path)
        with self.page("folder", viewport=DESKTOP) as page:
            page.goto("/")
            page.set_input_files("#pick-folder", folder)
            expect(page.locator("#uploads-summary")).to_have_text("All uploads have ended")
            expect(page.locator("#rows input[name=item]")).to_have_count(3)
            self._menu(page, "one.txt", "Delete…")
            expect(page.locator("dialog h1")).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.get_by_label("More for one.txt")).to_be_focused()
            self._delete_all(page, 3)
        self.steps[-1] = "folder"

    def log_in(self, password: str, file: Path) -> None:
        """Log in, upload with a session, and log out."""
        with self.page("login", viewport=PHONE) as page:
            page.goto("/console/health")
            self.audit(page, "login")
            page.screenshot(path=self.folder / "shots" / "login 390 light.png")
            page.get_by_label("Name").fill("admin")
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_text("Everything works")).to_be_visible()
            page.get_by_role("link", name="Files", exact=True).click()
            page.set_input_files("#pick-files", file)
            expect(page.locator(".upload [data-part=stage]")).to_contain_text("Done")
            with page.expect_download() as began:
                page.get_by_label(f"Download {file.name}").click()
            assert began.value.path().read_bytes() == file.read_bytes()
            page.context.clear_cookies()
            page.set_input_files("#pick-files", file)
            expect(page.get_by_text("Your session has ended. Log in again.")).to_be_visible()
            page.goto("/")
            expect(page.get_by_label("Password")).to_be_visible()
        refused = "login: error: Failed to load resource: the server responded with a status of 401"
        self.findings = [finding for finding in self.findings if not finding.startswith(refused)]
        self.steps.append("logged in")

    def show_more(self) -> None:
        """List more files than fit on a page."""
        with self.page("more", viewport=DESKTOP) as page:
            for number in range(51):
                page.request.put(f"/upload/{number}.txt", data=f"{number}")
            page.goto("/")
            expect(page.locator("#rows input[name=item]")).to_have_count(50)
            page.get_by_text("Show more").click()
            expect(page.locator("#rows input[name=item]")).to_have_count(51)
            expect(page.get_by_text("Show more")).to_have_count(0)
            self._delete_all(page, 51)
        self.steps[-1] = "more"

    def cancel_and_retry(self, file: Path) -> None:
        """Lose the connection in an upload, and try again."""
        with self.page("retry", viewport=DESKTOP) as page:
            page.goto("/")
            page.route("**/upload/**", lambda route: route.abort())
            page.set_input_files("#pick-files", file)
            stage = page.locator(".upload [data-part=stage]")
            expect(stage).to_have_text("The connection was lost.")
            page.unroute("**/upload/**")
            page.get_by_label(f"Try again: {file.name}").click()
            expect(stage).to_contain_text("Done")
        # The lost connection is in the console of the browser, as it should be.
        self.findings = [finding for finding in self.findings if not finding.startswith("retry: error: Failed to load")]
        self.steps.append("retried")

    def without_scripts(self, file: Path) -> None:
        """Upload, download and delete one file in a browser that runs no scripts."""
        with self.page("without scripts", viewport=DESKTOP, java_script_enabled=False) as page:
            page.goto("/")
            page.set_input_files("#file", file)
            page.get_by_role("button", name="Upload").click()
            expect(page.locator(".note.success")).to_contain_text("is stored")
            with page.expect_download() as began:
                page.get_by_label(f"Download {file.name}").click()
            assert began.value.path().read_bytes() == file.read_bytes()
            self._menu(page, file.name, "Delete…")
            page.get_by_role("button", name="Delete", exact=True).click()
            expect(page.locator(".note.success")).to_contain_text("is deleted")
        self.steps.append("without scripts")

    # -- what every page keeps -------------------------------------------------

    def every_page(self, paths: dict[str, str]) -> None:
        """Look at every page in two sizes and two schemes: no error, no violation, no scrolling sideways."""
        for viewport, scheme in LOOKS:
            look = f"{viewport['width']} {scheme}"
            with self.page(look, viewport=viewport, color_scheme=scheme) as page:
                for name, path in paths.items():
                    page.goto(path)
                    page.wait_for_load_state("networkidle")
                    width = page.evaluate("document.documentElement.scrollWidth")
                    if width > viewport["width"]:
                        self.findings.append(f"{look} {name}: {width} pixels wide")
                    self.audit(page, f"{look} {name}")
                    page.screenshot(path=self.folder / "shots" / f"{name} {look}.png", full_page=True)
        self.steps.append("every page")

    def audit(self, page: Page, name: str) -> None:
        for violation in Axe().run(page).response["violations"]:
            targets = [node["target"] for node in violation["nodes"]][:3]
            self.findings.append(f"{name}: axe: {violation['id']} {targets}")


def paths_of(page: Page) -> dict[str, str]:
    """The name and the address of every page, among them the pages of each file."""
    paths = {
        "files": "/",
        "health": "/console/health",
        "nodes": "/console/nodes",
        "uploads": "/console/jobs",
        "maintenance": "/console/jobs?work=maintenance",
        "refused": f"/console/file/{'0' * 64}",
    }
    files = page.request.get("/files?sort=file_name").json()["files"]
    for file in files:
        query = f"?file_name={quote(file['file_name'])}"
        paths[f"file {Path(file['file_name']).suffix}"] = f"/console/file/{file['file_hash']}{query}"
        for part in ("copies", "share", "rename"):
            paths[part] = f"/console/file/{file['file_hash']}/{part}{query}"
        paths["delete"] = f"/console/delete?item={file['file_hash']}/{quote(file['file_name'])}"
    return paths


def main(url: str, chromium: str, folder: Path, password: str = "") -> None:
    expect.set_options(timeout=PATIENCE)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visit = Visit(browser, url, folder)
        if password:
            visit.log_in(password, files[0])
            print(json.dumps({"findings": visit.findings, "steps": visit.steps}))
            browser.close()
            return
        visit.upload_download_delete(files)
        visit.upload_folder()
        visit.show_more()
        visit.without_scripts(files[0])
        for file in files:
            visit.cancel_and_retry(file)
        with visit.page("addresses") as page:
            paths = paths_of(page)
        visit.every_page(paths)
        # A page that is not there is answered with 404, which the browser's console repeats.
        findings = [finding for finding in visit.findings if "404 (Not Found)" not in finding]
        print(json.dumps({"findings": findings, "steps": visit.steps, "pages": len(paths)}))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
