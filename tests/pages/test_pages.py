"""Pages show what their values say, escape every text, and need nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryopick.pages.parts import Card, Curves, Histogram, Picture, Table, histogram_of
from cryopick.pages.render import circles, levels, render, ticks
from cryopick.pickers.exhibits import Exhibits
from cryopick.runs.report.close_ups import CloseUp, CloseUpRow
from cryopick.runs.report.full_views import FullView, FullViews
from cryopick.runs.report.model import MicrographView, RunReport
from cryopick.runs.results import RunSummary
from cryopick.types import Picks

HOSTILE = "<script>alert('\"&')</script>"
WITHOUT_END = {"meta", "img", "input", "br"}


class Elements(HTMLParser):
    """All tags of a page, its text, and whether every element that begins also ends."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def picks(n: int = 2) -> Picks:
    return Picks(xy_px=np.full((n, 2), 10.0), score=np.full(n, 0.5), diameter_px=np.full(n, 6.0))


def hostile_report(image: Path) -> RunReport:
    table = Table(title=HOSTILE, columns=(HOSTILE,) * 5, rows=((HOSTILE,) * 5,))
    view = MicrographView(
        name=HOSTILE, caption=HOSTILE, shape_yx=(30, 40), image=image, maps={HOSTILE: image}, kept=picks(),
        ruled_out=picks(1), low=picks(0),
    )  # fmt: skip
    window = FullView(
        micrograph=0, name=HOSTILE, caption=HOSTILE, left=0, top=0, width=20, height=10, jpeg=b"jpeg", kept=picks(),
        ruled_out=picks(1), low=picks(0),
    )  # fmt: skip
    one = CloseUp(micrograph=0, x=10, y=10, side_px=9, score=0.5, reason=HOSTILE)
    summary = RunSummary(
        cryopick_version=HOSTILE, picker=HOSTILE, micrographs=1, failed={HOSTILE: HOSTILE}, particles=2, candidates=3,
        rejected={HOSTILE: 1}, threshold=0.5, threshold_source=HOSTILE, score_meaning=HOSTILE, expected_precision=None,
        expected_recall=None, prepared=HOSTILE, diameter_px=None, diameter_angstrom=None, pixel_size_angstrom=None,
        box_px=None, binned_box_px=None, binned_pixel_size_angstrom=None, seconds=1.0, warnings={HOSTILE: 1},
    )  # fmt: skip
    return RunReport(
        path=HOSTILE,
        name=HOSTILE,
        summary=summary,
        cards=(Card(value=HOSTILE, text=HOSTILE),),
        nothing_kept=HOSTILE,
        warnings=((HOSTILE, 1),),
        doubts=(HOSTILE,),
        charts=(
            histogram_of(
                HOSTILE,
                np.arange(5.0),
                mark=2.0,
                mark_text=HOSTILE,
                x_label=HOSTILE,
                y_label=HOSTILE,
                outline=np.arange(3.0),
                bars_text=HOSTILE,
                below_text=HOSTILE,
                outline_text=HOSTILE,
            ),
            Histogram(title=HOSTILE),
            Curves(
                title=HOSTILE,
                x_label=HOSTILE,
                y_label=HOSTILE,
                lines={HOSTILE: ((0.0, 1.0),)},
                mark=0.5,
                mark_text=HOSTILE,
            ),
        ),
        thresholds=table,
        full=FullViews(views=(window,), missing=(HOSTILE,)),
        outcomes=table,
        exhibits=None,
        micrographs=(view,),
        close_ups=(CloseUpRow(title=HOSTILE, cells=(one,)),),
        every_micrograph=table,
        settings=table,
    )


def every_page(image: Path) -> dict[str, str]:
    table = Table(title=HOSTILE, caption=HOSTILE, columns=(HOSTILE,), rows=((HOSTILE,),))
    curves = Curves(title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE, lines={HOSTILE: ((0.0, 1.0), (1.0, 0.5))})
    items = (Picture(title=HOSTILE, png=b"png"), table, curves)
    report = hostile_report(image)
    return {
        "notebook": report._repr_html_(),
        "run": render("run.html", report=report, exhibits=Exhibits(HOSTILE, items)),
        "benchmark": render(
            "benchmark.html", scores=table, sets=[HOSTILE], errors=[HOSTILE], pictures=items, machine=HOSTILE
        ),
    }


@pytest.mark.parametrize("name", ["run", "benchmark", "notebook"])
def test_a_page_escapes_every_text_closes_every_element_and_needs_no_network(name: str, tmp_path: Path) -> None:
    page = every_page(tmp_path / "missing.jpg")[name]
    found = Elements(page)
    assert found.open == []
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert HOSTILE in found.words
    assert HOSTILE not in page
    sources = [value for key, value in found.attributes if key in ("src", "href", "xlink:href")]
    assert sources or name == "notebook"
    assert all(re.match(r"data:image/(png|jpeg);base64,|#picture0$", str(source)) for source in sources)
    assert "http" not in page
    assert "url(" not in page
    assert every_page(tmp_path / "missing.jpg")[name] == page


def test_the_picture_of_a_micrograph_is_inside_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 picture")
    assert "data:image/jpeg;base64,/9ggcGljdHVyZQ==" in every_page(tmp_path / "a.jpg")["run"]


def test_a_histogram_has_a_bar_for_each_count_grey_below_the_mark() -> None:
    chart = histogram_of("scores", np.repeat([0.0, 1.0, 4.0], [3, 1, 6]), mark=2.0, mark_text="cut", x_label="score")
    assert (sum(chart.counts), len(chart.edges)) == (10, 41)
    html = render("exhibits.html", exhibits=Exhibits("x", (chart,)))
    bars = re.findall(r'<rect class="bar( below)?" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', html)
    assert bars == [
        (" below", "58.0", "128.0", "98.0"),
        (" below", "146.0", "193.3", "32.7"),
        ("", "401.2", "30.0", "196.0"),
    ]
    assert ">score</text>" in html
    empty = Exhibits("x", (histogram_of("none", np.empty(0)),))
    assert "nothing to show" in render("exhibits.html", exhibits=empty)


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
    st.lists(st.floats(-60, 60, width=32), max_size=20),
    st.floats(-60, 60, width=32),
)
def test_every_bar_lies_on_one_side_of_the_mark_and_no_value_is_lost(values, others, mark) -> None:
    score, beside = np.array(values, np.float32), np.array(others, np.float32)
    chart = histogram_of("s", score, mark=mark, outline=beside)
    assert sum(chart.counts) == len(values)
    assert sum(chart.outline) == len(others)
    assert list(chart.edges) == sorted(chart.edges)
    if min(values + others) < mark < max(values + others):
        below = sum(count for count, _, high in chart.bars if chart.is_below(high))
        assert below == np.count_nonzero(score < np.float32(mark))


def test_heights_are_logarithms_only_where_one_bar_towers_above_the_rest() -> None:
    even = histogram_of("even", np.arange(400.0))
    noisy = histogram_of("noisy", np.concatenate([np.zeros(100_000), np.arange(400.0)]))
    assert not even.is_log
    assert noisy.is_log
    assert [text for _, text in levels(noisy.largest, is_log=True)] == ["0", "1", "100", "10,000"]
    # ten candidates beside a hundred thousand: 2 px of 196 would be nothing, this is a fifth
    assert noisy.height(10) / noisy.height(noisy.largest) > 0.2
    html = render("exhibits.html", exhibits=Exhibits("x", (noisy,)))
    heights = [float(height) for height in re.findall(r'<rect class="bar"[^>]* height="([\d.]+)"', html)]
    assert len(heights) == 40
    assert min(heights) > 20


@given(st.integers(1, 10**7), st.booleans())
def test_levels_are_few_whole_counts_that_are_drawn(largest: int, is_log: bool) -> None:
    found = [count for count, _ in levels(largest, is_log=is_log)]
    assert found[0] == 0
    assert found == sorted(set(found))
    assert 2 <= len(found) <= 9
    assert found[-1] <= largest


def test_the_legend_names_only_what_is_there() -> None:
    words = {"bars_text": "kept", "below_text": "low", "outline_text": "out"}
    assert histogram_of("s", np.arange(5.0), mark=-1.0, **words).legend == [("kept", "kept")]
    every = histogram_of("s", np.arange(5.0), mark=2.0, outline=np.arange(2.0), **words)
    assert [text for _, text in every.legend] == ["kept", "low", "out"]


@pytest.mark.parametrize("count", [1, 5, 6, 14])
def test_every_curve_has_a_look_and_a_name_of_its_own_in_the_plot_or_below_it(count: int) -> None:
    names = [f"run {letter}" for letter in "abcdefghijklmnop"[:count]]
    lines = {name: ((0.0, 1.0), (1.0, 0.5)) for name in names}
    chart = Curves(title="FSC", x_label="x", y_label="y", lines=lines)
    html = render("exhibits.html", exhibits=Exhibits("x", (chart,)))
    looks = re.findall(r'<polyline class="(line [^"]*)"', html)
    assert len(set(looks)) == count
    assert re.findall(r'<path class="(line [^"]*)"', html) == looks
    assert re.findall(r">(run \w)</(?:text|span)>", html) == names
    assert ('<div class="legend">' in html) == (count > 5)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_in_order_and_inside(low: float, span: float) -> None:
    marks = ticks(low, low + span)
    values = [value for value, _ in marks]
    assert 2 <= len(marks) <= 7
    assert values == sorted(values)
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in values)
    assert len({text for _, text in marks}) == len(marks)


def test_circles_are_one_path_around_their_centres() -> None:
    path = circles(np.array([[10.0, 20.0], [50.0, 60.0]]), np.array([8.0, np.nan]), unknown_px=20)
    assert path == "M6 20a4 4 0 1 0 8 0a4 4 0 1 0 -8 0M40 60a10 10 0 1 0 20 0a10 10 0 1 0 -20 0"
