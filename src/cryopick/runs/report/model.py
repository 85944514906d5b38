"""What the report of a run shows, as plain values: the page draws them, and other views can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.geometry.units import share_text
from cryopick.pages.parts import Card, Curves, Histogram, Table, histogram_of
from cryopick.pages.render import render, ticks
from cryopick.pickers.exhibits import Exhibits, read_exhibits
from cryopick.processing.belief import OpenCandidates
from cryopick.processing.spread import evenly_taken
from cryopick.runs.cut_curve import CutCurve
from cryopick.runs.folder import MODEL, RunFolder
from cryopick.runs.report.close_ups import CloseUpRow, close_up_rows
from cryopick.runs.report.full_views import FullViews, full_views
from cryopick.runs.results import (
    MicrographResult,
    MicrographTotals,
    RunResults,
    RunSummary,
    read_result,
    why_nothing_is_kept,
)
from cryopick.runs.settings import RunSettings
from cryopick.runs.sizes import pixel_size_text
from cryopick.runs.threshold import Cut, believed_scores
from cryopick.settings import as_text
from cryopick.types import Picks

MOST_PICTURES = 24
"""Micrographs shown; all of them up to here, else spread evenly from the fewest picks to the most."""
CURVE_STEP = 10
"""Every tenth of the 1001 points of a curve is drawn: one for 3.6 px of its plot."""


@dataclass(frozen=True, kw_only=True)
class MicrographView:
    """A micrograph, its small picture and its candidates in pixels of the micrograph as stored."""

    name: str
    caption: str
    shape_yx: tuple[int, int]
    image: Path
    """JPEG; spans the whole micrograph, as do the maps."""
    maps: Mapping[str, Path]
    kept: Picks
    ruled_out: Picks
    """Rejected by a rule other than the threshold."""
    low: Picks
    """Below the threshold."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Everything that the report of a run shows."""

    path: str
    name: str
    summary: RunSummary
    cards: tuple[Card, ...]
    doubts: tuple[str, ...]
    """Of what the cards say."""
    nothing_kept: str
    """Why no particle is kept; "" where some are."""
    warnings: tuple[tuple[str, int], ...]
    """Each different warning, and for how many micrographs it was given, the commonest first."""
    charts: tuple[Histogram | Curves, ...]
    """Scores, what is expected over the threshold where scores are probabilities, and counts."""
    thresholds: Table
    """What some thresholds would keep, the run's own among them."""
    outcomes: Table
    exhibits: Exhibits | None
    micrographs: tuple[MicrographView, ...]
    close_ups: tuple[CloseUpRow, ...]
    every_micrograph: Table
    settings: Table
    full: FullViews = field(default_factory=FullViews)
    so_far: str = ""
    """Of a run that goes on: how far it has come, and when."""

    def _repr_html_(self) -> str:
        """For notebooks: the numbers, warnings and charts; micrographs are in `report.html` and `cryopick view`."""
        return render("run_notebook.html", report=self)


def run_report(
    folder: RunFolder,
    results: RunResults,
    settings: Mapping[str, Mapping[str, Any]],
    *,
    full_with: RunSettings | None = None,
) -> RunReport:
    """What is to be shown of a run; pictures are named here and read when they are drawn.

    Of the candidates only those of the micrographs whose pictures are shown are read again.

    Parameters
    ----------
    full_with : how micrographs are read, to show windows of a few at full resolution; None shows none
    """
    summary, micrographs = results.summary, results.micrographs
    shown = [read_result(folder, one, results.cut) for one in _spread(micrographs)]
    return RunReport(
        path=folder.path.as_posix(),
        name=folder.path.name,
        summary=summary,
        cards=tuple(_cards(summary, micrographs)),
        doubts=tuple(filter(None, (summary.expected_doubt, summary.box_doubt if summary.particles else ""))),
        nothing_kept="" if summary.particles else why_nothing_is_kept(summary),
        warnings=tuple(sorted(summary.warnings.items(), key=lambda item: (-item[1], item[0]))),
        charts=(
            score_histogram(results.candidates, results.cut, ruled_out=results.ruled_out),
            *expected_curves(results.curve, threshold=summary.threshold),
            _count_histogram(micrographs),
        ),
        thresholds=_thresholds(results.curve, summary),
        outcomes=_outcomes(summary),
        exhibits=read_exhibits(folder.path / MODEL),
        micrographs=tuple(_micrograph_view(folder, result) for result in shown),
        close_ups=close_up_rows(shown, threshold=summary.threshold),
        every_micrograph=_every_micrograph(micrographs),
        settings=_settings(settings),
        full=FullViews() if full_with is None else full_views(shown, full_with),
    )


def _spread(micrographs: Sequence[MicrographTotals]) -> list[MicrographTotals]:
    if len(micrographs) <= MOST_PICTURES:
        return list(micrographs)
    by_count = sorted(micrographs, key=lambda one: (one.count, one.record.name))
    return evenly_taken(by_count, MOST_PICTURES)


def _cards(summary: RunSummary, micrographs: Sequence[MicrographTotals]) -> list[Card]:
    counts = [one.count for one in micrographs]
    cards = [
        (f"{summary.particles:,}", f"particles kept of {summary.candidates:,} candidates"),
        (f"{np.median(counts):g}" if counts else "0", "particles per micrograph (median)"),
        (f"{summary.threshold:.4g}", f"score threshold ({summary.threshold_source})"),
    ]
    if summary.expected_precision is not None and summary.expected_recall is not None:
        unsure = "; unsure, see below" if summary.expected_doubt else ""
        cards.append((summary.expected_right, f"of the picks are expected to be right{unsure}"))
        cards.append((share_text(summary.expected_recall), "of the particles are expected to be picked"))
    if summary.centring:
        of_members = f"; {summary.centring_of_members}" if summary.centring_of_members else ""
        cards.append((summary.centring, f"median centring error{of_members}"))
    for one in summary.sizes if summary.particles else ():
        at = f" at {pixel_size_text(one)}" if len(summary.sizes) > 1 else ""
        if one.diameter_px is not None:
            angstrom = "" if one.diameter_angstrom is None else f" = {one.diameter_angstrom:g} Å"
            cards.append((f"{one.diameter_px:g} px{angstrom}", f"particle diameter{at}"))
        if one.box_px is not None:
            cards.append((f"{one.box_px} px", f"suggested box{at}"))
        if one.binned_box_px is not None:
            text = f"suggested binned box, {one.binned_pixel_size_angstrom:.3g} Å/px{at and f', binned from {at[4:]}'}"
            cards.append((f"{one.binned_box_px} px", text))
    return [Card(value=value, text=text) for value, text in cards]


def score_histogram(
    candidates: Mapping[str, OpenCandidates], cut: Cut, *, ruled_out: NDArray[np.float32] | None = None
) -> Histogram:
    """What the threshold decides on: scores, and where micrographs are believed in part or not at all, times that.

    Parameters
    ----------
    ruled_out : (n,) scores of what other rules reject, which no threshold brings back
    """
    is_believed = all(cut.belief_in(name) == 1 for name in candidates)
    times = "" if is_believed else ", times how far its micrograph is believed"
    return histogram_of(
        "Scores of all candidates",
        believed_scores(candidates, cut.belief),
        mark=float(np.float32(cut.threshold)),
        outline=ruled_out,
        mark_text=f"threshold {cut.threshold:.4g}",
        x_label=f"score{times}",
        y_label="candidates",
        bars_text="kept",
        below_text="below the threshold",
        outline_text="rejected by a rule, at any threshold",
    )


def expected_curves(curve: CutCurve, *, threshold: float) -> tuple[Curves, ...]:
    """Expected shares over the threshold; none where scores are no probabilities, or there is no candidate."""
    if not curve.is_expected:
        return ()
    x, precision, recall = curve.threshold, curve.precision, curve.recall
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
    lines = {
        "right, of those kept (precision)": precision,
        "kept, of all particles (recall)": recall,
        "both (F1)": np.where(np.isfinite(precision), f1, np.nan),
    }
    return (
        Curves(
            title="What other thresholds would give, as the scores say",
            x_label="threshold",
            y_label="expected share",
            lines={
                name: tuple(
                    (float(a), float(b))
                    for a, b in zip(x[::CURVE_STEP].tolist(), line[::CURVE_STEP].tolist(), strict=True)
                    if np.isfinite(b)
                )
                for name, line in lines.items()
            },
            x_range=(float(x[0]), float(x[-1])),
            mark=threshold,
            mark_text=f"threshold {threshold:.4g}",
        ),
    )


def _thresholds(curve: CutCurve, summary: RunSummary) -> Table:
    """The run's own threshold among round ones; its row is what the summary says."""
    low, high = float(curve.threshold[0]), float(curve.threshold[-1])
    width = 4 if curve.is_expected else 2
    rows: list[tuple[float, tuple[str, ...]]] = []
    if high > low and curve.kept[0]:
        near = (high - low) / 50
        for value in (float(text) for _, text in ticks(low, high)):
            place = curve.at(value)
            if abs(value - summary.threshold) > near and curve.kept[place]:
                shares = (_share(curve.precision[place]), _share(curve.recall[place]))
                rows.append((value, (f"{value:g}", f"{int(curve.kept[place]):,}", *shares)))
        own = ("" if one is None else share_text(one) for one in (summary.expected_precision, summary.expected_recall))
        rows.append((summary.threshold, (f"{summary.threshold:.4g} (now)", f"{summary.particles:,}", *own)))
    columns = ("threshold", "particles", "expected right", "expected found")
    return Table(title="Other thresholds", columns=columns[:width], rows=tuple(row[:width] for _, row in sorted(rows)))


def _share(value: np.float32) -> str:
    return share_text(float(value)) if np.isfinite(value) else ""


def _count_histogram(micrographs: Sequence[MicrographTotals]) -> Histogram:
    counts = np.array([one.count for one in micrographs], dtype=np.float64)
    return histogram_of(
        "Particles per micrograph", counts, low=0.0, x_label="particles in a micrograph", y_label="micrographs"
    )


def _outcomes(summary: RunSummary) -> Table:
    rejected = sorted(summary.rejected.items(), key=lambda item: -item[1])
    rows = tuple((name, f"{count:,}") for name, count in (("kept", summary.particles), *rejected))
    return Table(title="What became of the candidates", columns=("outcome", "candidates"), rows=rows)


def _micrograph_view(folder: RunFolder, result: MicrographResult) -> MicrographView:
    record, candidates = result.record, result.candidates
    height, width = record.shape_yx or (1, 1)
    mean = f", mean score {result.mean_score:.3g}" if result.count else ""
    verdict = "" if result.verdict is None else f"; {result.verdict.verdict}"
    size = "" if record.pixel_size_angstrom is None else f", {record.pixel_size_angstrom:g} Å/px"
    is_low = candidates.reason == BELOW_THRESHOLD
    return MicrographView(
        name=record.name,
        caption=f"{result.count} particles{mean}; {width} × {height} px{size}{verdict}",
        shape_yx=(height, width),
        image=folder.image_path(record.key),
        maps={name: folder.map_path(record.key, name) for name in record.maps},
        kept=candidates.kept(),
        ruled_out=candidates.take(~candidates.is_kept & ~is_low),
        low=candidates.take(is_low),
    )


class _Rows(Sequence[tuple[str, ...]]):
    """A row of text for each micrograph, made when it is asked for."""

    def __init__(self, micrographs: Sequence[MicrographTotals]) -> None:
        self._micrographs = micrographs

    def __len__(self) -> int:
        return len(self._micrographs)

    @overload
    def __getitem__(self, place: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, place: slice) -> _Rows: ...
    def __getitem__(self, place: int | slice) -> tuple[str, ...] | _Rows:
        if isinstance(place, slice):
            return _Rows(self._micrographs[place])
        one = self._micrographs[place]
        return (
            one.record.name,
            str(one.count),
            str(one.candidate_count),
            f"{one.mean_score:.3g}" if one.count else "",
            "" if one.verdict is None else ": ".join(filter(None, (one.verdict.verdict, one.verdict.reason))),
            "; ".join(one.record.warnings),
        )


def _every_micrograph(micrographs: Sequence[MicrographTotals]) -> Table:
    columns = ("micrograph", "particles", "candidates", "mean score", "verdict", "warnings")
    return Table(title=f"All {len(micrographs)} micrographs", columns=columns, rows=_Rows(micrographs))


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [(section, name, as_text(value)) for section, values in settings.items() for name, value in values.items()]
    return Table(title="Settings", columns=("section", "setting", "value"), rows=tuple(rows))
