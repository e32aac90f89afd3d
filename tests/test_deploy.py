"""The alerts and the dashboard in deploy/: they use metrics that exist, and each alert is tested and explained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.api.metrics import exposition
from tests.support.cluster import ClusterUnderTest, cluster
from tests.support.metrics import scrape
from tests.test_documents import anchors, read

__all__ = ["cluster"]

PROJECT = Path(__file__).resolve().parent.parent
DEPLOY = PROJECT / "deploy"
METRIC = re.compile(r"\bocc_\w+")
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
CASES = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression of an alert and of a panel, with the name of the alert or the panel."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield f"variable {variable['name']}", variable["query"]


def test_every_metric_of_an_alert_or_a_panel_exists(cluster: ClusterUnderTest) -> None:
    names = scrape().names
    unknown = {(where, name) for where, text in expressions() for name in METRIC.findall(text) if name not in names}
    assert not unknown
    tested = {name for case in CASES for series in case["input_series"] for name in METRIC.findall(series["series"])}
    assert tested <= names


def test_every_metric_is_in_the_documents_and_no_other(cluster: ClusterUnderTest) -> None:
    text = read("docs/operations.md")
    written = {name for line in text.splitlines() if line.startswith("| `occ_") for name in METRIC.findall(line)}
    ends = re.compile(r"_(bucket|count|sum|lower_bound|upper_bound)$")
    assert {ends.sub("", name) for name in scrape().names} == {ends.sub("", name) for name in written}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do_and_is_explained(rule: dict[str, Any]) -> None:
    said = rule["annotations"]
    assert said.keys() == {"summary", "action", "runbook"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert "for" in rule
    document, _, anchor = said["runbook"].partition("#")
    assert anchor in anchors(PROJECT / document)
    assert f"| `{rule['alert']}` |" in read("docs/operations.md")


def test_every_alert_is_seen_quiet_and_firing() -> None:
    seen: dict[str, set[bool]] = {rule["alert"]: set() for rule in RULES}
    for case in CASES:
        for check in case["alert_rule_test"]:
            seen[check["alertname"]].add(bool(check["exp_alerts"]))
    assert {name for name, kinds in seen.items() if kinds != {True, False}} == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_takes_the_files(arguments: tuple[str, ...]) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    done = subprocess.run(["promtool", *arguments], cwd=DEPLOY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_metrics(cluster: ClusterUnderTest) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    done = subprocess.run(["promtool", "check", "metrics"], input=exposition.text(), capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
