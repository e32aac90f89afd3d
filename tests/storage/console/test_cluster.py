"""The pages about nodes, health and jobs."""

from __future__ import annotations

import re

import pytest

from storage.console import plots, words
from storage.models import Job
from tests.support.cluster import ClusterUnderTest, content_of
from tests.support.console import Browser, Page, seen


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
    workers.bring_back("node_001")


def test_the_page_of_nodes_shows_state_room_and_time(workers: ClusterUnderTest, page: Page) -> None:
    workers.take_offline("node_002")
    text = page("/console/nodes")
    assert text.count('<section class="node">') == 5
    assert "Does not answer" in text
    assert re.search(r"since\s+<time[^>]*>just now", text)
    workers.bring_back("node_002")


def test_jobs_are_listed_with_uploads_apart_from_maintenance(workers: ClusterUnderTest, page: Page) -> None:
    workers.upload(b"x", "file.bin")
    Job.request(Job.Kind.AUDIT, "node_003")
    failed = Job.request(Job.Kind.DRAIN, "node_004")
    Job.objects.filter(pk=failed.pk).update(state="failed", error={"title": "No room", "detail": "the disks are full"})
    assert "Store “ file.bin ” Done" in seen(page("/console/jobs"))
    text = seen(page("/console/jobs?work=maintenance"))
    assert "Read and check everything on a node node_003 Waiting" in text
    assert "The disks are full." in text
    assert "No room. The disks are full." in seen(page(f"/console/jobs/{failed.pk}"))
    page("/console/jobs/nothing", 404)


def test_the_api_lists_jobs_page_by_page(workers: ClusterUnderTest) -> None:
    ids = [str(Job.request(Job.Kind.AUDIT, f"node_00{number}").pk) for number in range(5)][::-1]
    found, address = [], "/jobs?limit=2&work=maintenance&state=queued"
    while address:
        answer = Browser().get(address).json()
        found += [job["id"] for job in answer["jobs"]]
        address = (answer["next"] or "").removeprefix("http://testserver")
    assert found == ids
    for query in ("work=x", "state=x", "limit=0", "cursor=x", "cursor=MjAyNi0wMS0wMSB4", "other=1"):
        assert Browser().get(f"/jobs?{query}").status_code == 400, query


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 KB"), (999_600, "1.0 MB"), (123_456_789, "123 MB")],
)
def test_sizes_are_in_the_units_of_people(count: int, text: str) -> None:
    assert words.size(count) == text


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


def test_a_disk_is_shown_in_parts_of_a_hundred() -> None:
    bar = plots.fill(stored=10, disk=100, free=50)
    assert bar is not None
    assert (bar.stored, bar.others, bar.free) == (10, 40, 50)
    assert plots.fill(10, None, None) is None
    crowded = plots.fill(stored=500, disk=100, free=30)
    assert crowded is not None
    assert crowded.stored + crowded.others + crowded.free == 100
