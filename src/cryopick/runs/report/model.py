"""What the report of a run shows, as plain values: the page draws them, and other views can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.geometry.units import share_text
from cryopick.pages.parts import Card, Histogram, Table, histogram_of
from cryopick.pickers.exhibits import Exhibits, read_exhibits
from cryopick.processing.belief import OpenCandidates
from cryopick.processing.spread import evenly_taken
from cryopick.runs.folder import MODEL, RunFolder
from cryopick.runs.report.close_ups import CloseUpRow, close_up_rows
from cryopick.runs.results import (
    MicrographResult,
    MicrographTotals,
    RunResults,
    RunSummary,
    read_result,
    why_nothing_is_kept,
)
from cryopick.runs.sizes import pixel_size_text
from cryopick.runs.threshold import Cut, believed_scores
from cryopick.settings import as_text
from cryopick.types import Picks

MOST_PICTURES = 24
"""Micrographs shown; all of them up to here, else spread evenly from the fewest picks to the most."""


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
    nothing_kept: str
    """Why no particle is kept; "" where some are."""
    warnings: tuple[tuple[str, int], ...]
    """Each different warning, and for how many micrographs it was given, the commonest first."""
    histograms: tuple[Histogram, ...]
    outcomes: Table
    exhibits: Exhibits | None
    micrographs: tuple[MicrographView, ...]
    close_ups: tuple[CloseUpRow, ...]
    every_micrograph: Table
    settings: Table
    so_far: str = ""
    """Of a run that goes on: how far it has come, and when."""


def run_report(folder: RunFolder, results: RunResults, settings: Mapping[str, Mapping[str, Any]]) -> RunReport:
    """What is to be shown of a run; pictures are named here and read when they are drawn.

    Of the candidates only those of the micrographs whose pictures are shown are read again.
    """
    summary, micrographs = results.summary, results.micrographs
    shown = [read_result(folder, one, results.cut) for one in _spread(micrographs)]
    return RunReport(
        path=folder.path.as_posix(),
        name=folder.path.name,
        summary=summary,
        cards=tuple(_cards(summary, micrographs)),
        nothing_kept="" if summary.particles else why_nothing_is_kept(summary),
        warnings=tuple(sorted(summary.warnings.items(), key=lambda item: (-item[1], item[0]))),
        histograms=(score_histogram(results.candidates, results.cut), _count_histogram(micrographs)),
        outcomes=_outcomes(summary),
        exhibits=read_exhibits(folder.path / MODEL),
        micrographs=tuple(_micrograph_view(folder, result) for result in shown),
        close_ups=close_up_rows(shown, threshold=summary.threshold),
        every_micrograph=_every_micrograph(micrographs),
        settings=_settings(settings),
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
        unsure = f" (unsure: {summary.expected_doubt})" if summary.expected_doubt else ""
        cards.append((summary.expected_right, f"of the picks are expected to be right{unsure}"))
        cards.append((share_text(summary.expected_recall), "of the particles are expected to be picked"))
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
    if summary.box_doubt and summary.particles:
        cards.append(("doubtful", summary.box_doubt))
    return [Card(value=value, text=text) for value, text in cards]


def score_histogram(candidates: Mapping[str, OpenCandidates], cut: Cut) -> Histogram:
    """What the threshold decides on: scores, and where micrographs are believed in part or not at all, times that."""
    title = "Scores of all candidates that no other rule rejects"
    if any(cut.belief_in(name) < 1 for name in candidates):
        title += ", times how far their micrographs are believed"
    mark_text = f"threshold {cut.threshold:.4g}"
    return histogram_of(title, believed_scores(candidates, cut.belief), mark=cut.threshold, mark_text=mark_text)


def _count_histogram(micrographs: Sequence[MicrographTotals]) -> Histogram:
    counts = np.array([one.count for one in micrographs], dtype=np.float64)
    return histogram_of("Particles per micrograph", counts, low=0.0)


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
