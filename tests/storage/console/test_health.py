"""The page about the whole installation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage.console import plots, timelines, words
from storage.models import Job
from storage.services import health, history
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.console import Page, seen

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_the_health_page_says_in_one_sentence_whether_everything_works(workers: ClusterUnderTest, page: Page) -> None:
    workers.upload(content_of(20), "file.bin")
    text = page("/console/health")
    assert "Everything works" in text
    assert text.count('class="bar') == 3
    assert "node_000, node_001" in text, "the table behind the heat map"
    workers.take_offline("node_001")
    seen_now = seen(page("/console/health"))
    assert "something needs attention" in seen_now
    assert "node_001 is offline. See that its disk is there and answers." in seen_now
    health.watch()
    assert "Since just now" in seen(page("/console/health"))
    workers.bring_back("node_001")


def test_estimates_stand_next_to_what_a_census_has_counted(workers: ClusterUnderTest, page: Page) -> None:
    workers.upload(content_of(20), "file.bin")
    assert "have not been counted yet" in page("/console/health")
    Job.ensure(Job.Kind.CENSUS, "cluster")
    workers.maintain()
    assert "Copies of each 3.00 3.00 3.00 3.00" in seen(page("/console/health"))


def test_plots_over_time_have_their_tables(workers: ClusterUnderTest, page: Page) -> None:
    assert page("/console/health").count("no figures of this time yet") == 6
    workers.upload(content_of(3))
    history.take()
    text = page("/console/health?hours=1")
    assert text.count("<polyline") >= 4
    assert "uploads · 0 maintenance" in seen(text)
    page("/console/health?hours=many")


def sample(minutes_ago: float, **figures: Any) -> dict[str, Any]:
    return {"at": (NOW - timedelta(minutes=minutes_ago)).isoformat(), **figures}


def test_a_count_that_begins_again_is_not_negative() -> None:
    times = [NOW + timedelta(minutes=each) for each in range(5)]
    assert timelines.growth([100, 220, None, 60, 120], times) == [None, 2.0, None, None, 1.0]
    assert timelines.growth([100, 60], times[:2], each=False) == [None, 60]


def test_a_gap_in_the_samples_is_a_gap_in_the_line() -> None:
    ages = [*range(60, 40, -1), *range(20, 0, -1)]
    waiting = timelines.of([sample(age, queued=1, waiting=0) for age in ages], NOW, 1)[1]
    assert [len(line.paths) for line in waiting.lines] == [2, 2]
    assert waiting.now == "1 uploads · 0 maintenance"
    assert len(waiting.rows) <= timelines.MOST_ROWS
    hourly = [sample(60 * age, queued=1, waiting=0) for age in range(700, 24, -1)]
    minutely = [sample(age, queued=1, waiting=0) for age in range(24 * 60, 0, -1)]
    for hours in (24, 168, 720):
        whole = timelines.of([*hourly, *minutely], NOW, hours)[1].lines[0]
        assert len(whole.paths) == 1, hours
        assert len(whole.paths[0].split()) <= 2 * timelines.POINTS + 700


def test_without_samples_there_is_nothing_to_draw() -> None:
    assert all(plot.is_empty for plot in timelines.of([], NOW, 24))
    assert all(plot.is_empty for plot in timelines.of([sample(1)], NOW, 24))


@pytest.mark.parametrize(
    ("text", "wrong", "remedy"),
    [
        ("node_001 is offline: see that its disk answers", "node_001 is offline.", "See that its disk answers."),
        ("files cannot be read: 3; bring the nodes back", "Files cannot be read: 3.", "Bring the nodes back."),
        ("uploads wait: 2, for up to 9 s; see that", "Uploads wait: 2, for up to 9 s.", "See that."),
        ("the disk is broken", "The disk is broken.", ""),
    ],
)
def test_a_trouble_is_told_apart_from_what_to_do(text: str, wrong: str, remedy: str) -> None:
    assert words.trouble(text) == (wrong, remedy)


def test_a_bar_of_few_is_marked_only_if_there_are_some() -> None:
    row = {"or_more": False, "lower_bound": 0.0, "upper_bound": None, "saturated": False}
    rows = [{**row, "replicas": 1, "estimate": 2.0}, {**row, "replicas": 2, "estimate": 0.1}]
    bars = plots.spectrum([*rows, {**row, "replicas": 3, "estimate": 10**6}], target=3).bars
    assert [bar.is_short for bar in bars] == [True, False, False]
    assert bars[0].height < bars[2].height <= plots.HEIGHT
    assert plots.spectrum([], 3).bars == []
