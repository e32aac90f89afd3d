"""Everything that docs/races.md and docs/invariants.md name exists, and every rule that is cited is written there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
RACES, INVARIANTS = PROJECT / "docs/races.md", PROJECT / "docs/invariants.md"
CITING = ("storage", "occsite", "sketches", "tests", "docs")

HEADING = re.compile(r"^##+ (?:(\d+)\. )?.+$", re.MULTILINE)
INVARIANT = re.compile(r"^\| (\d+)\. ", re.MULTILINE)
NUMBERS = r"\d+(?:[–-]\d+)?"
CITATION = re.compile(rf"\bRACES\b(?:\s+({NUMBERS}(?:, {NUMBERS})*))?")

CODE = r"`[^`]+`"
FUNCTIONS = rf"{CODE}(?:, {CODE})*"
GUARD = re.compile(rf"({CODE}) \(({FUNCTIONS})\)")
PARAGRAPH = re.compile(rf".+\. Guard: (?:{GUARD.pattern}(?:, |(?=\.)))+\. Test: {FUNCTIONS}\.")
ROW = re.compile(rf"\|.*\|.*(?:{GUARD.pattern}|`storage/[a-z/]+`).*\|.*`test.*\|")


def on_one_line(text: str) -> str:
    return " ".join(text.split())


def rules() -> dict[int, str]:
    """Map the number of each rule to its paragraph, on one line."""
    _, *parts = HEADING.split(RACES.read_text())
    return {int(number): on_one_line(text) for number, text in zip(parts[::2], parts[1::2], strict=True) if number}


def cited() -> Iterator[tuple[str, str | None]]:
    """Find each citation of a rule: its file, and its numbers, or None if the citation has no number."""
    for folder in CITING:
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".html", ".c") and path not in (RACES, Path(__file__)):
                for match in CITATION.finditer(path.read_text()):
                    yield str(path.relative_to(PROJECT)), match[1]


def numbers_of(citation: str) -> Iterator[int]:
    """Yield the numbers that a citation such as "2, 9–13" stands for."""
    for part in citation.split(", "):
        first, *last = map(int, re.split("[–-]", part))
        yield from range(first, (last or [first])[0] + 1)


@cache
def defined_in(path: Path) -> frozenset[str]:
    """Return the names of the functions, classes and constants of a module. Methods are ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return frozenset(found)


@cache
def names_of_tests() -> frozenset[str]:
    names = set[str]()
    for path in (PROJECT / "tests").rglob("test_*.py"):
        names |= {name.rpartition(".")[2] for name in defined_in(path)}
    return frozenset(name for name in names if name.startswith("test_"))


def missing(text: str) -> list[str]:
    """List the files, functions and tests that a text names and that do not exist."""
    found = [name for name in re.findall(r"`(test_\w+)`", text) if name not in names_of_tests()]
    found += [path for path in re.findall(r"`([\w/]+/[\w/]+(?:\.py)?)`", text) if not (PROJECT / path).exists()]
    for guard in GUARD.finditer(text):
        path = PROJECT / guard[1].strip("`")
        names = re.findall(r"`([^`]+)`", guard[2])
        found += [f"{guard[1]} {name}" for name in names if not path.is_file() or name not in defined_in(path)]
    return found


def test_the_rules_are_in_the_order_of_their_numbers() -> None:
    """Changes that are made at the same time reserve numbers, so a number may be missing. No number is given twice."""
    numbers = [int(number) for number in HEADING.findall(RACES.read_text()) if number]
    assert len(numbers) >= 30
    assert numbers == sorted(set(numbers))


def test_each_rule_ends_with_its_guards_and_its_tests() -> None:
    assert [number for number, paragraph in rules().items() if not PARAGRAPH.fullmatch(paragraph)] == []


@pytest.mark.parametrize("document", [RACES, INVARIANTS], ids=lambda path: path.name)
def test_what_a_document_names_exists(document: Path) -> None:
    assert missing(on_one_line(document.read_text())) == []


def test_each_invariant_names_a_guard_and_a_test() -> None:
    rows = [line for line in INVARIANTS.read_text().splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    assert [row for row in rows if not ROW.fullmatch(row)] == []


def test_each_rule_that_is_cited_is_written() -> None:
    written = rules()
    citations = list(cited())
    assert len(citations) > 50
    assert [path for path, numbers in citations if numbers is None] == [], "a citation needs its number"
    unknown = [(path, number) for path, cite in citations for number in numbers_of(cite or "") if number not in written]
    assert unknown == []


def test_each_invariant_that_is_cited_is_written() -> None:
    written = set(INVARIANT.findall(INVARIANTS.read_text()))
    for folder in CITING:
        for path in (PROJECT / folder).rglob("*.py"):
            unknown = set(re.findall(r"\b[Ii]nvariant (\d+)", path.read_text())) - written
            assert not unknown, f"{path} cites {unknown}"
