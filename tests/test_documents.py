"""The documents agree with the code: links lead somewhere, and names, variables and endpoints exist."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

import pytest

from storage.api import errors
from storage.api.urls import urlpatterns
from storage.conf import Configuration

PROJECT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "sketches/*.md", "tests/*.md", ".github/**/*.md")
    for path in PROJECT.glob(pattern)
)
README_LINES = 300
SET_BY_THE_IMAGE = {"HOST", "PORT", "S3_PORT", "STORAGE_DIR", "LOG_TO"}

# The README that described the wanted service had these headings. The order and the words of these headings stay.
HEADINGS = """
Quick Start
Using Docker Compose (Recommended)
Using Docker Directly
API Endpoints
Health Check
Network Status
Upload File
Download File
List Files
Verify File
Rebalance File
Testing the API
Automated Test Suite
Manual Testing with curl
Test with Exponential Science Logo
Configuration
Environment Variables
Custom Configuration
Production Deployment
With Nginx Reverse Proxy
With HTTPS (TLS/SSL)
Scaling
Monitoring
Health Checks
Logs
Metrics
Security Considerations
Troubleshooting
Container won't start
Upload fails
Download fails
Performance issues
API Client Examples
Python Client
JavaScript Client
Development
Local Development
Building Custom Image
Performance
Benchmarks
Optimization Tips
License & Credits
""".strip().splitlines()

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def read(name: str) -> str:
    return (PROJECT / name).read_text()


def headings(text: str) -> list[str]:
    return _HEADING.findall(_FENCE.sub("", text))


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(path.read_text()))
    return {text.replace(" ", "-") for text in plain}


def links(path: Path) -> Iterator[str]:
    for target in _LINK.findall(_FENCE.sub("", path.read_text())):
        if not re.match(r"[a-z]+:", target):
            yield unquote(target)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{link}: there is no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_the_readme_is_short_and_has_the_headings_that_were_asked_for() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= README_LINES
    assert headings(text)[1:] == HEADINGS


def test_every_document_is_in_the_index() -> None:
    listed = {(PROJECT / "docs" / link).resolve() for link in links(PROJECT / "docs/index.md")}
    present = {path for path in (PROJECT / "docs").rglob("*.md") if path.parent.name != "adr"}
    assert present - {PROJECT / "docs/index.md"} <= listed


def test_decisions_have_one_form_and_are_in_their_index() -> None:
    records = sorted((PROJECT / "docs/adr").glob("0*.md"))
    rows = re.findall(r"^\| \[(\d+)\]\((\S+)\) \| (.+) \| (\w+) \| (\S+) \|$", read("docs/adr/index.md"), re.MULTILINE)
    assert [row[1] for row in rows] == [path.name for path in records]
    for (number, _, title, status, date), path in zip(rows, records, strict=True):
        text = path.read_text()
        assert text.startswith(f"# {number}. {title}\n\n{status.capitalize()}, {date}.\n"), path.name
        assert headings(text)[1:] == ["Context", "Decision", "Consequences"], path.name


# -- settings ----------------------------------------------------------------


class Asked(Mapping[str, str]):
    """An empty environment that records the names it was asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def variables() -> set[str]:
    """Return the names of all variables that an operator may set."""
    asked = Asked()
    Configuration.from_environment(asked)
    named = {name for name in asked.names if not name.endswith("_FILE")}  # One paragraph has all _FILE names.
    return named | set(re.findall(r'environ\.get\("(\w+)"', read("occsite/settings.py")))


def documented() -> dict[str, str]:
    """Map each variable in the table of docs/configuration.md to its default there."""
    rows = re.findall(r"^\| \[`(\w+)`\]\(#[\w-]+\) \| ([^|]+) \|", read("docs/configuration.md"), re.MULTILINE)
    return dict(rows)


def test_every_variable_is_explained_with_its_default() -> None:
    assert set(documented()) == variables()
    defaults = Configuration.from_environment({})
    for name, default in documented().items():
        value = getattr(defaults, name.lower(), None)
        if type(value) is int and name != "INGEST_WORKERS":
            assert default.split()[0] == str(value), name


def test_every_variable_has_a_paragraph() -> None:
    text = read("docs/configuration.md")
    assert {name for name in variables() if f"**`{name}`**" not in text} == set()


def test_compose_hands_every_variable_on() -> None:
    environment = read("docker-compose.yml").partition("x-program")[0]
    handed_on = {name.removesuffix("_FILE") for name in re.findall(r"^  ([A-Z0-9_]+):", environment, re.MULTILINE)}
    assert variables() - SET_BY_THE_IMAGE <= handed_on


# -- endpoints, statuses, tests and files that documents name -----------------


def test_every_endpoint_is_in_the_document_of_the_api() -> None:
    text = read("docs/api.md")
    for pattern in urlpatterns:
        if getattr(pattern, "name", None):
            path = "/" + re.sub(r"<\w+:(\w+)>", r"<\1>", str(pattern.pattern))
            assert f"{path}`" in text, path


def test_every_status_of_an_error_is_in_the_document_of_the_api() -> None:
    listed = set(re.findall(r"^\| (\d{3}) \|", read("docs/api.md"), re.MULTILINE))
    assert {str(status) for status in errors.STATUS.values()} <= listed


def test_tests_that_documents_name_are_there() -> None:
    defined = {
        name for path in (PROJECT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    for document in ("docs/invariants.md", "docs/faults.md", "docs/races.md"):
        text = read(document) if (PROJECT / document).exists() else ""
        for name, rest in re.findall(r"(?<![\w/])(test_[a-z0-9_]+)(\.py|…)?", text):
            if rest == ".py":
                assert list((PROJECT / "tests").rglob(f"{name}.py")), f"{document}: {name}.py"
            elif rest:
                assert any(test.startswith(name) for test in defined), f"{document}: {name}…"
            else:
                assert name in defined, f"{document}: {name}"


def test_files_that_the_recipes_name_are_there() -> None:
    named = re.findall(r"`((?:storage|tests|docs|occsite)/[\w/]+(?:\.\w+|/))`", read("CONTRIBUTING.md"))
    assert named
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_make_alone_lists_every_target() -> None:
    makefile = read("Makefile").replace("\\\n", " ")
    targets = next(re.finditer(r"^\.PHONY: (.+)$", makefile, re.MULTILINE))[1].split()
    printed = subprocess.run(["make", "--no-print-directory"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert re.findall(r"^make ([\w-]+) +\S", printed.stdout, re.MULTILINE) == targets
