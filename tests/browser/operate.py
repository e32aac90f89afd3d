"""Operates an installation with Chromium, and prints what it finds as JSON.

Playwright lives in a virtual environment of its own, so this program imports nothing of the product:

    python -m tests.browser.operate URL CHROMIUM FOLDER PASSWORD

The installation asks for keys. The user ``admin`` empties a node, adds a node, checks a node, and makes a key. The
screenshots go to FOLDER/shots.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.visit import Visit
from tests.browser.visitor import DESKTOP, PATIENCE

NODE = "node_004"
SECRET = re.compile(r"[A-Za-z0-9]{40}")


class Operation(Visit):
    """One visit of an operator."""

    password: str

    def enter(self, page: Page) -> None:
        page.goto("/console/nodes")
        page.get_by_label("Name").fill("admin")
        page.get_by_label("Password").fill(self.password)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Nodes")).to_be_visible()

    def empty_a_node(self) -> None:
        """See the plan, confirm it, and watch the copies go."""
        with self.page("drain", viewport=DESKTOP) as page:
            self.enter(page)
            for number in range(12):
                answer = page.request.put(
                    f"/upload/{number}.bin", data=bytes([number]) * 300_000, headers={"Sec-Fetch-Site": "same-origin"}
                )
                assert answer.ok, answer.text()
            page.goto(f"/console/nodes/{NODE}")
            page.get_by_role("link", name="Empty…").click()
            dialogue = page.locator("dialog")
            expect(dialogue.get_by_role("heading")).to_have_text(f"Empty {NODE}?")
            expect(dialogue.locator(".plan")).to_contain_text("Copies on the node")
            self.audit(page, "plan of a drain")
            dialogue.get_by_role("button", name="Empty it").click()
            expect(page.get_by_role("heading", name="Empty a node")).to_be_visible()
            expect(page.locator("#job .state")).to_have_text("Done", timeout=PATIENCE)
            page.goto("/console/nodes")
            expect(page.get_by_role("link", name=NODE)).to_have_count(0)
            expect(page.get_by_role("link", name="node_003")).to_be_visible()
        self.steps.append("emptied")

    def add_a_node(self) -> None:
        with self.page("add", viewport=DESKTOP) as page:
            self.enter(page)
            page.get_by_role("link", name="Add a node").click()
            page.get_by_label("Zone").fill("rack 2")
            page.get_by_role("button", name="Show the plan").click()
            expect(page.get_by_role("heading", name="Add node_005?")).to_be_visible()
            self.audit(page, "plan of a new node")
            page.get_by_role("button", name="Add it").click()
            expect(page.get_by_text("node_005 is there")).to_be_visible()
            expect(page.get_by_role("link", name="node_005")).to_be_visible()
        self.steps.append("added")

    def check_a_node(self) -> None:
        with self.page("check", viewport=DESKTOP) as page:
            self.enter(page)
            page.get_by_role("link", name="node_000").click()
            page.get_by_role("link", name="Check…").click()
            page.locator("dialog").get_by_role("button", name="Check it").click()
            expect(page.get_by_role("heading", name="Read and check everything on a node")).to_be_visible()
            expect(page.locator("#job .state")).to_have_text("Done", timeout=PATIENCE)
            page.goto("/console/nodes/node_000")
            expect(page.get_by_text("all well")).to_be_visible()
        self.steps.append("checked")

    def make_a_key(self) -> None:
        """Make a key in a page, give it a new secret in a dialogue, and revoke it."""
        with self.page("keys", viewport=DESKTOP) as page:
            self.enter(page)
            page.get_by_role("link", name="Keys").click()
            page.get_by_label("Name", exact=True).fill("backup")
            page.get_by_role("button", name="Make the key").click()
            secret = page.locator(".made code").nth(1).inner_text()
            assert SECRET.fullmatch(secret), secret
            self.audit(page, "a new key")
            page.goto("/console/keys")
            page.get_by_label(re.compile("New secret for")).click()
            page.locator("dialog").get_by_role("button", name="Make a new secret").click()
            expect(page.locator("dialog .made code").nth(1)).to_have_text(SECRET)
            expect(page.locator("dialog .made code").nth(1)).not_to_have_text(secret)
            page.locator("dialog").get_by_role("link", name="Done").click()
            page.get_by_label(re.compile("^Revoke")).click()
            page.locator("dialog").get_by_role("button", name="Revoke").click()
            expect(page.get_by_text("opens nothing any more")).to_be_visible()
            page.get_by_role("link", name="Activity").click()
            expect(page.get_by_text("revoked the key").first).to_be_visible()
        self.steps.append("key")

    def operate_without_scripts(self) -> None:
        """Empty a node, and look at the activity, in a browser that runs no scripts."""
        with self.page("operator without scripts", viewport=DESKTOP, java_script_enabled=False) as page:
            self.enter(page)
            page.get_by_role("link", name="node_005").click()
            page.get_by_role("link", name="Empty…").click()
            page.get_by_role("button", name="Empty it").click()
            expect(page.get_by_role("heading", name="Empty a node")).to_be_visible()
            page.goto("/console/activity?action=upload")
            expect(page.get_by_text("0.bin").first).to_be_visible()
        self.steps.append("without scripts")

    def every_operators_page(self) -> None:
        paths = {
            "operator health": "/console/health",
            "operator nodes": "/console/nodes",
            "operator node": "/console/nodes/node_000",
            "operator plan": "/console/nodes/node_000/audit",
            "operator add": "/console/nodes/add",
            "operator jobs": "/console/jobs?work=maintenance",
            "operator links": "/console/links",
            "operator keys": "/console/keys",
            "operator activity": "/console/activity",
        }
        with self.page("session", viewport=DESKTOP) as page:
            self.enter(page)
            (job,) = page.request.get("/jobs?limit=1&work=maintenance").json()["jobs"]
            paths |= {"operator job": f"/console/jobs/{job['id']}"}
            cookies: list[Any] = list(page.context.cookies())
        self.cookies = cookies
        self.every_page(paths)
        self.cookies = []


def main(url: str, chromium: str, folder: Path, password: str) -> None:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visit = Operation(browser, url, folder)
        visit.password = password
        visit.empty_a_node()
        visit.add_a_node()
        visit.check_a_node()
        visit.make_a_key()
        visit.every_operators_page()
        visit.operate_without_scripts()
        print(json.dumps({"findings": visit.findings, "steps": visit.steps}))
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
