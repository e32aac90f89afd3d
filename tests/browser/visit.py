"""Visits the console with Chromium, and prints what it finds as JSON.

Playwright lives in a virtual environment of its own, so this program imports nothing from outside ``tests/browser``:

    python -m tests.browser.visit URL CHROMIUM FOLDER [PASSWORD]

If PASSWORD, the password of the user admin, is given, the program logs in and does nothing else. FOLDER has the files
that are uploaded; the screenshots go to FOLDER/shots.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.interruptions import Interruptions
from tests.browser.visitor import DESKTOP, PATIENCE, PHONE

LOOKS = ((DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark"))


class Visit(Interruptions):
    """One visit, and what went wrong in it."""

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
        field.fill("a//b")
        page.locator("dialog").get_by_role("button", name="Rename").click()
        expect(page.locator("dialog .error-text")).to_contain_text("between two slashes")
        field.fill("renamed.bin")
        page.locator("dialog").get_by_role("button", name="Rename").click()
        expect(page.locator("#rows").get_by_text("renamed.bin")).to_be_visible()
        self.steps.append("renamed")

    def _delete_all(self, page: Page, count: int) -> None:
        self._mark_and_delete(page, count)
        expect(page.get_by_text("No files yet")).to_be_visible()
        self.steps.append("deleted")

    def _mark_and_delete(self, page: Page, count: int) -> None:
        page.get_by_label("Mark all").check()
        expect(page.locator("#chosen output")).to_have_text(f"{count} files marked")
        page.get_by_role("button", name="Delete marked files…").click()
        expect(page.locator("dialog h1")).to_have_text(f"Delete {count} files?")
        page.locator("dialog").get_by_role("button", name="Delete", exact=True).click()
        expect(page.locator(".note.success")).to_contain_text(f"{count} files are deleted")

    def upload_folder(self) -> None:
        """Drop a folder of 50 files, see progress, walk through its folders, delete, and undo that."""
        folder = self.folder / "folder"
        paths = [f"{place}/{number}.txt" for place in (".", "inner", "inner/most", "other") for number in range(12)]
        for path in (*paths, "inner/large.bin", "one.txt"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(os.urandom(9 << 20) if path.endswith("bin") else path.encode())
        with self.page("folder", viewport=DESKTOP) as page:
            page.goto("/")
            self._drop_folder(page, folder)
            expect(page.locator("#uploads-summary")).to_contain_text("Uploading")
            expect(page.locator("#upload-list .upload")).to_have_count(50)
            expect(page.locator("#upload-list .name").first).to_contain_text("folder/")
            expect(page.locator("#uploads-summary")).to_have_text("All uploads have ended")
            expect(page.locator(".upload.done")).to_have_count(50)
            page.get_by_role("link", name="folder (folder)").press("Enter")
            expect(page.locator("#list")).to_be_focused()
            expect(page.locator("#rows input[name=item]")).to_have_count(13)
            expect(page.locator("#upload-list .upload")).to_have_count(50)  # The browser has not loaded another page.
            self.audit(page, "folder")
            self._menu(page, "one.txt", "Delete…")
            expect(page.locator("dialog h1")).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.get_by_label("More for one.txt")).to_be_focused()
            page.get_by_role("link", name="inner (folder)").click()
            self._download(page, folder / "inner" / "large.bin")
            self._put_into_folder(page)
            self._mark_and_delete(page, 14)
            self.audit(page, "offer")
            page.screenshot(path=self.folder / "shots" / "offer 1280 light.png")
            page.locator(".offer").get_by_role("button", name="Undo").click()
            expect(page.locator(".note.success")).to_contain_text("14 files are back")
            expect(page.locator("#rows input[name=item]")).to_have_count(14)
            page.go_back()
            page.goto("/?q=.txt")
            expect(page.locator("#rows input[name=item]")).to_have_count(50)
        self._empty()
        self.steps[-1] = "folder"

    def _drop_folder(self, page: Page, folder: Path) -> None:
        """Drop a folder as the system does: the page gets entries that it has to open."""
        session = page.context.new_cdp_session(page)
        dragged = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 400, "data": dragged})

    def _put_into_folder(self, page: Page) -> None:
        """Choose a file and a folder while a folder is shown: they go into this folder, and marked rows stay marked."""
        box = page.get_by_label("Mark 1.txt", exact=True)
        box.check()
        page.set_input_files("#pick-files", self.folder / "folder" / "one.txt")
        expect(page.get_by_label("More for one.txt")).to_be_visible()
        expect(box).to_be_checked()
        expect(page.locator("#chosen output")).to_have_text("1 file marked")
        box.uncheck()
        expect(page.locator("#upload-list .name").last).to_have_text("folder/inner/one.txt")
        page.set_input_files("#pick-folder", self.folder / "folder" / "inner" / "most")
        expect(page.locator(".upload.done")).to_have_count(63)
        expect(page.locator("#upload-list .name").last).to_contain_text("folder/inner/most/")

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
            page.get_by_role("button", name="Undo").click()
            expect(page.locator(".note.success")).to_contain_text("1 file is back")
            expect(page.locator("#rows input[name=item]")).to_have_count(1)
        self._empty()
        self.steps.append("without scripts")

    def look_into_a_bucket(self) -> None:
        """Open the folder of a bucket, search in it, download an object, and delete it after the question."""
        with self.page("bucket", viewport=DESKTOP) as page:
            page.goto("/")
            page.get_by_role("link", name="Buckets").click()
            page.get_by_role("link", name="photos").click()
            page.get_by_role("link", name="2026 (folder)").press("Enter")
            expect(page.locator("#list")).to_be_focused()
            expect(page.locator("#rows tr")).to_have_count(3)
            page.get_by_label("Search by the beginning of names").fill("bea")
            expect(page.locator("#rows tr")).to_have_count(1)
            page.get_by_label("Search by the beginning of names").fill("")
            expect(page.locator("#rows tr")).to_have_count(3)
            with page.expect_download() as began:
                page.get_by_label("Download beach.jpg").click()
            assert began.value.suggested_filename == "beach.jpg"
            assert began.value.path().read_bytes() == b"2026/beach.jpg"
            self._menu(page, "beach.jpg", "Delete…")
            expect(page.locator("dialog")).to_contain_text("cannot be undone")
            self.audit(page, "delete object")
            page.locator("dialog").get_by_role("button", name="Delete", exact=True).click()
            expect(page.locator(".note.success")).to_contain_text("“beach.jpg” is deleted")
            expect(page.locator("#rows tr")).to_have_count(2)
        self.steps.append("bucket")

    # -- what every page keeps -------------------------------------------------

    def every_page(self, paths: dict[str, str]) -> None:
        """Look at every page in two sizes and colour schemes: no error, no finding of axe, no scrolling sideways."""
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


def paths_of(page: Page) -> dict[str, str]:
    """The name and the address of every page, among them the pages of each file."""
    paths = {
        "files": "/",
        "folder": "/?folder=photos/2026/",
        "found": "/?q=.csv",
        "health": "/console/health",
        "nodes": "/console/nodes",
        "uploads": "/console/jobs",
        "maintenance": "/console/jobs?work=maintenance",
        "buckets": "/console/buckets",
        "bucket": "/console/buckets/photos",
        "bucket folder": "/console/buckets/photos?folder=2026/",
        "bucket found": "/console/buckets/photos?q=none",
        "delete object": "/console/buckets/photos/delete?key=2026/june/sun.jpg",
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
        visit.look_into_a_bucket()
        visit.without_scripts(files[0])
        for file in (files[0], files[1]):
            visit.survive_a_lost_line(file)
        visit.go_on_after_the_page_was_closed()
        visit.pause_and_cancel()
        visit.try_again_after_a_failure(files[0])
        with visit.page("files of every kind") as page:
            page.goto("/")
            page.set_input_files("#pick-files", files)
            expect(page.locator(".upload.done")).to_have_count(len(files))
            for name in ("photos/list.csv", "photos/2026/beach.csv", "photos/2026/june/sun.csv"):
                page.request.put(f"/upload/{name}", data=name)
        with visit.page("addresses") as page:
            paths = paths_of(page)
        visit.every_page(paths)
        # One page does not exist. The browser's console reports its 404 as an error, which is no finding.
        findings = [finding for finding in visit.findings if "404 (Not Found)" not in finding]
        print(json.dumps({"findings": findings, "steps": visit.steps, "pages": len(paths)}))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
