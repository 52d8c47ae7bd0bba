"""The report is one well-formed page that shows what was sampled and needs nothing from elsewhere."""

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import chart  # noqa: E402
import report  # noqa: E402
from record import Sample  # noqa: E402

MODELS = ["first", "second"]


def sample(at: float, size: int) -> Sample:
    nodes = {"ready": size, "desired": size, "launching": 0, "draining": 0}
    load = {"rate": 10 * size, "sent": 10 * size, "refused": 0, "failed": 0, "p99Ms": 5.0}
    return Sample(at, {"first": (size, size)}, nodes, 1.006 * size, 1.006 * size, load)


@pytest.fixture
def page() -> str:
    samples = [Sample(10.0), *(sample(10.5 + n / 2, 1 + n // 20) for n in range(60))]
    steps = [("a cluster", 0, 10), ("one & <two>", 10, 20), ("the end", 30, 15)]
    marks = [(12.0, "load 80/s"), (12.1, "AWS"), (40.0, "a word at the right end")]
    return report.page(report.Run(samples, steps, marks, [("cost", "1 USD & more")], MODELS))


def test_nothing_is_loaded_from_elsewhere(page):
    assert not re.search(r"https?:|//|\bsrc=|url\(|@import|<script|<link", page)


def test_every_chart_is_well_formed_and_shows_its_lines(page):
    images = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    charts = [image for image in images if image.get("role") == "img"]
    assert len(charts) == 7
    paths = {image.get("aria-label"): [p.get("d") for p in image.iter("path")] for image in charts}
    assert [len(lines) for lines in paths.values()] == [0, 2, 1, 2, 4, 3, 2]
    # The second model never was.
    assert [bool(line) for line in paths["Replicas"]] == [True, True, False, False]
    # Three nodes in the end: two steps upwards, and no more points than that needs.
    assert paths["Nodes"][0].count("V") == 2


def test_steps_marks_and_facts_are_there_and_escaped(page):
    for text in ("one &amp; &lt;two&gt;", "load 80/s", "1 USD &amp; more"):
        assert text in page
    assert "<two>" not in page


def test_a_gap_is_a_gap():
    axis = chart.Axis(0, 10, [])
    drawn = chart.path([(0, 1), (1, 1), (2, 1), (3, None), (4, 2), (5, 3)], axis, lambda value: value)
    assert re.sub(r"[\d. ]+", "", drawn) == "MHMHV"


def test_times_are_round_and_within_the_axis():
    assert chart.Axis(118.3, 338.6, []).times() == [125, 150, 175, 200, 225, 250, 275, 300, 325]
    assert chart.Axis(0, 900, []).times() == list(range(0, 901, 100))


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(0, [0, 1]), (1, [0, 0.25, 0.5, 0.75, 1]), (4, [0, 1, 2, 3, 4]), (4.024, [0, 2, 4, 6]), (83, [0, 25, 50, 75, 100]), (0.3, [0, 0.1, 0.2, 0.3])],
)
def test_ticks_are_round_and_reach_the_highest(highest, expected):
    assert chart.ticks(highest) == expected
