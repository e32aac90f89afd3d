"""Takes the pictures of the documents with Chromium:

    python -m tests.browser.photograph URL CHROMIUM STATE OUT PASSWORD story|pages

STATE is the STORAGE_DIR of the installation at URL. The installation asks for keys, is empty, and repairs itself within
seconds (REPAIR_DELAY). The story is that of docs/tutorial.md: a first file, a link to it, a disk that dies, a new node.
After the story, ``pages`` takes a picture of every page: on a desktop, on a phone, and in the dark. The pictures have
few colours, so that they are small.
"""

from __future__ import annotations

import io
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

DESKTOP, PHONE = {"width": 1100, "height": 700}, {"width": 390, "height": 760}
LOOKS = (("", DESKTOP, "light"), ("-phone", PHONE, "light"), ("-dark", DESKTOP, "dark"))
TALLEST = 2200  # pixels
COLOURS, FREQUENT = 160, 100  # A picture keeps 160 colours; 100 of them are its most frequent colours.
OTHERS = 1500  # At most this many colours of a picture are compared.
PATIENCE = 60_000  # ms
DEAD = "node_001"
OWN = {"Sec-Fetch-Site": "same-origin"}


class Photographer:
    """Takes pictures in one session of the user ``admin``."""

    def __init__(self, browser: Browser, url: str, out: Path, password: str) -> None:
        self.browser, self.url, self.out = browser, url, out
        out.mkdir(parents=True, exist_ok=True)
        context = self._context(DESKTOP, "light")
        self.page = context.new_page()
        self.page.goto("/")
        self.page.get_by_label("Name").fill("admin")
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("button", name="Choose files")).to_be_visible()
        self.cookies: list[Any] = list(context.cookies())

    def _context(self, viewport: dict[str, int], scheme: str) -> BrowserContext:
        size: Any = viewport
        look: Any = scheme
        context = self.browser.new_context(base_url=self.url, viewport=size, color_scheme=look)
        context.set_default_timeout(PATIENCE)
        return context

    def take(self, name: str, page: Page | None = None, *, whole: bool = True) -> None:
        """Take a picture of the page as it is now: all of it, or what is in the window."""
        shown = page or self.page
        shown.evaluate("document.activeElement?.blur()")
        picture = Image.open(io.BytesIO(shown.screenshot(full_page=whole, animations="disabled"))).convert("RGB")
        picture = picture.crop((0, 0, picture.width, min(picture.height, TALLEST)))
        few = picture.quantize(palette=_palette_of(picture), dither=Image.Dither.NONE)
        few.save(self.out / f"{name}.png", optimize=True)

    def every_page(self, paths: dict[str, str]) -> None:
        for suffix, viewport, scheme in LOOKS:
            context = self._context(viewport, scheme)
            context.add_cookies(self.cookies)
            page = context.new_page()
            for name, path in paths.items():
                page.goto(path)
                page.wait_for_load_state("networkidle")
                self.take(f"{name}{suffix}", page)
            context.close()


def _palette_of(picture: Image.Image) -> Image.Image:
    """A palette of the most frequent colours, which stay as they are, and the colours that differ most from these."""
    counted: Any = picture.getcolors(maxcolors=1 << 24)
    colours = [colour for _, colour in sorted(counted, reverse=True)]
    chosen, others = colours[:FREQUENT], colours[FREQUENT:OTHERS]
    distances = {other: min(_distance(other, colour) for colour in chosen) for other in others}
    while distances and len(chosen) < COLOURS:
        farthest = max(distances, key=lambda other: distances[other])
        chosen.append(farthest)
        del distances[farthest]
        for other, distance in distances.items():
            distances[other] = min(distance, _distance(other, farthest))
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in chosen for part in colour])
    return palette


def _distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def landscape(seed: int) -> bytes:
    """A picture of hills, as a JPEG."""
    chance = random.Random(seed)
    picture = Image.new("RGB", (1200, 800))
    pen = ImageDraw.Draw(picture)
    for y in range(800):
        pen.line((0, y, 1200, y), (250 - y // 8, 190 - y // 10, 150 + y // 12))
    pen.ellipse((760, 180, 900, 320), (255, 238, 200))
    for layer in range(5):
        shade = (60 - layer * 8, 110 - layer * 14, 120 - layer * 14)
        phase, tall = chance.uniform(0, 6), 60 + layer * 12
        hills = [(x, 380 + layer * 85 + tall * math.sin(x / (230 - layer * 20) + phase)) for x in range(0, 1201, 4)]
        pen.polygon([(0, 800), *hills, (1200, 800)], shade)
    data = io.BytesIO()
    picture.filter(ImageFilter.GaussianBlur(1)).save(data, "JPEG", quality=88)
    return data.getvalue()


def files() -> dict[str, bytes]:
    chance = random.Random(7)
    letter = "Dear neighbours,\n\nthe summer fair is on the last Saturday of June. Please bring chairs.\n"
    return {
        "Harbour at dawn.jpg": landscape(1),
        "Summer fair.txt": letter.encode(),
        "Hills.jpg": landscape(2),
        "Budget 2026.xlsx": chance.randbytes(310_000),
        "Interview with the mayor.mp3": chance.randbytes(4_100_000),
        "backup-2026-11.tar.gz": chance.randbytes(9_700_000),
        "Minutes of the meeting.pdf": chance.randbytes(820_000),
    }


def first_file(camera: Photographer) -> None:
    page = camera.page
    camera.take("tutorial-1-empty")
    made = [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files().items()]
    payload: Any = made
    page.set_input_files("#pick-files", payload)
    expect(page.locator("#uploads-summary")).to_have_text("All uploads have ended")
    camera.take("tutorial-2-stored")
    page.locator("#rows").get_by_role("link", name="Harbour at dawn.jpg", exact=True).first.click()
    expect(page.locator(".preview img")).to_be_visible()
    page.wait_for_load_state("networkidle")
    camera.take("tutorial-3-file", whole=False)


def share_it(camera: Photographer) -> None:
    page = camera.page
    page.goto("/")
    page.get_by_label("More for Harbour at dawn.jpg").click()
    page.locator("details.menu[open]").get_by_text("Share…").click()
    page.locator("dialog").get_by_role("button", name="Make a link").click()
    expect(page.locator("dialog .made code")).to_be_visible()
    camera.take("tutorial-4-share", whole=False)


def lose_a_disk(camera: Photographer, state: Path) -> None:
    """Take a node's directory away, photograph the trouble, give the node up, and wait until all is well again."""
    page = camera.page
    (state / "nodes" / DEAD).rename(state / f"{DEAD}.dead")
    _wait_for(lambda: any(t["since"] and t["name"] == DEAD for t in _health(page).get("troubles", ())))
    page.goto("/console/health")
    camera.take("tutorial-5-trouble", whole=False)
    page.goto(f"/console/nodes/{DEAD}")
    page.get_by_role("link", name="Give up…").click()
    expect(page.locator("dialog .plan")).to_be_visible()
    camera.take("tutorial-6-give-up", whole=False)
    page.locator("dialog").get_by_role("button", name="Give it up").click()
    expect(page.locator("#job .state")).to_have_text("Done", timeout=PATIENCE)
    _wait_for(lambda: _health(page)["status"] == "healthy")
    page.goto("/console/health")
    camera.take("tutorial-7-well-again", whole=False)


def add_a_node(camera: Photographer) -> None:
    page = camera.page
    page.goto("/console/nodes/add")
    page.get_by_label("Zone").fill("second rack")
    page.get_by_role("button", name="Show the plan").click()
    camera.take("tutorial-8-add", whole=False)
    page.get_by_role("button", name="Add it").click()
    expect(page.get_by_text("is there")).to_be_visible()
    _wait_for(lambda: not page.request.get("/jobs?work=maintenance&state=queued").json()["jobs"])
    _wait_for(lambda: not page.request.get("/jobs?work=maintenance&state=running").json()["jobs"])
    page.goto("/console/nodes")
    camera.take("tutorial-9-added", whole=False)


def paths_of(page: Page) -> dict[str, str]:
    """The addresses of all pages."""
    found = {file["file_name"]: file["file_hash"] for file in page.request.get("/files").json()["files"]}
    picture = f"/console/file/{found['Harbour at dawn.jpg']}"
    jobs = page.request.get("/jobs?work=maintenance&limit=50").json()["jobs"]
    rebalance = next(job["id"] for job in jobs if job["kind"] == "rebalance all")
    return {
        "files": "/",
        "file": picture,
        "copies": f"{picture}/copies",
        "health": "/console/health",
        "nodes": "/console/nodes",
        "node": "/console/nodes/node_003",
        "plan": "/console/nodes/node_003/drain",
        "jobs": "/console/jobs?work=maintenance",
        "job": f"/console/jobs/{rebalance}",
        "links": "/console/links",
        "activity": "/console/activity",
        "keys": "/console/keys",
    }


def _health(page: Page) -> dict[str, Any]:
    answer: dict[str, Any] = page.request.get("/health").json()
    return answer


def _is_even(overlap: dict[str, Any] | None) -> bool:
    """True if the sketches show no pair of nodes that shares too much. While copies move, some pairs do."""
    return overlap is not None and max(abs(z or 0) for row in overlap["z"] for z in row) < overlap["bound"]


def _wait_for(condition: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def main(url: str, chromium: str, state: Path, out: Path, password: str, part: str) -> None:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        camera = Photographer(browser, url, out, password)
        if part == "pages":
            camera.every_page(paths_of(camera.page))
            browser.close()
            return
        first_file(camera)
        share_it(camera)
        lose_a_disk(camera, state)
        add_a_node(camera)
        for name in ("backup of the office", "gallery on the web site"):
            camera.page.request.post("/keys", data={"name": name}, headers=OWN)
        camera.page.request.post("/nodes/node_003/audit", headers=OWN)
        _wait_for(lambda: camera.page.request.get("/nodes/node_003").json()["audit"])
        _wait_for(lambda: _is_even(camera.page.request.get("/status").json()["overlap"]))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), *sys.argv[5:7])
