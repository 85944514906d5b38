"""The report of a run: one HTML file that needs nothing else, with pictures, histograms, counts and settings."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.selection import BELOW_THRESHOLD
from cryopick.geometry.units import share_percent
from cryopick.pickers.exhibits import read_exhibits
from cryopick.processing.spread import evenly_taken
from cryopick.runs.folder import MODEL, REPORT, RunFolder
from cryopick.runs.report.exhibits import exhibits_html
from cryopick.runs.report.gallery import gallery_html, picture_id
from cryopick.runs.results import MicrographResult, RunSummary, why_nothing_is_kept
from cryopick.runs.sizes import pixel_size_text
from cryopick.settings import as_text
from cryopick.types import Picks

MOST_PICTURES = 24
"""Micrographs shown; all of them up to here, else spread evenly from the fewest picks to the most."""
_KEPT, _REJECTED, _LOW = "#17c964", "#f5a524", "#8f9bb3"

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2430; background: #f5f6f8; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 10px; }
.muted { color: #667085; }
.warn { background: #fff4e0; border-left: 4px solid #f5a524; padding: 8px 12px; margin: 8px 0; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.card { background: #fff; border-radius: 8px; padding: 10px 16px; box-shadow: 0 1px 2px #0002; }
.card b { display: block; font-size: 22px; } .panel b { display: block; margin-bottom: 6px; }
.charts { display: flex; flex-wrap: wrap; gap: 16px; }
.panel { background: #fff; border-radius: 8px; padding: 12px; box-shadow: 0 1px 2px #0002; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 16px; }
figure { margin: 0; background: #fff; border-radius: 8px; padding: 10px; box-shadow: 0 1px 2px #0002; }
figure:focus { grid-column: 1 / -1; outline: none; } figure { cursor: zoom-in; }
figure svg { width: 100%; height: auto; display: block; } figcaption { margin-top: 6px; overflow-wrap: anywhere; }
.maps { display: flex; gap: 8px; margin-top: 6px; } .maps div { flex: 1; font-size: 12px; } .maps img { width: 100%; }
table { border-collapse: collapse; background: #fff; }
td, th { padding: 4px 12px; text-align: left; border-bottom: 1px solid #e4e7ec; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } details { margin: 10px 0; }
.other, .low { display: none; }
#show-other:checked ~ .gallery .other, #show-low:checked ~ .gallery .low { display: inline; }
input { margin-bottom: 14px; } label { margin-right: 18px; cursor: pointer; }
.closeups { display: flex; flex-wrap: wrap; gap: 8px; font-size: 12px; color: #667085; } .closeups div { width: 84px; }
code { background: #eceef2; padding: 1px 5px; border-radius: 4px; }
"""


def write_report(
    folder: RunFolder,
    summary: RunSummary,
    results: Sequence[MicrographResult],
    settings: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write `report.html`; the same run gives the same bytes, so times of day and durations are left to the log."""
    folder.write(folder.path / REPORT, report_html(folder, summary, results, settings))


def report_html(
    folder: RunFolder,
    summary: RunSummary,
    results: Sequence[MicrographResult],
    settings: Mapping[str, Mapping[str, Any]],
) -> str:
    """The report as text."""
    shown = _spread(results)
    parts = [
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>cryopick: {escape(folder.path.name)}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style></head><body><main>",
        f"<h1>{summary.particles:,} particles in {summary.micrographs:,} micrographs</h1>",
        f"<div class=muted>cryopick {summary.cryopick_version}, picker <b>{escape(summary.picker)}</b>; score: "
        f"{escape(summary.score_meaning)}{'' if summary.score_is_probability else ' (no probability)'}</div>",
        _cards(summary, results),
        _problems(summary),
        "<h2>Scores and counts</h2><div class=charts>",
        _score_chart(summary, results),
        _count_chart(results),
        "</div>",
        _reasons(summary),
        exhibits_html(read_exhibits(folder.path / MODEL)),
        f"<h2>Micrographs{'' if len(shown) == len(results) else f' ({len(shown)} of {len(results)}, by count)'}</h2>",
        "<input type=checkbox id=show-other><label for=show-other> show candidates rejected by a rule (amber)</label>",
        "<input type=checkbox id=show-low><label for=show-low> show candidates below the threshold (grey)</label>",
        "<div class=muted>Click a picture to enlarge it.</div><div class=gallery>",
        *(_figure(folder, result, number) for number, result in enumerate(shown)),
        "</div>",
        gallery_html(shown, threshold=summary.threshold),
        _micrograph_table(results),
        _settings(settings),
        _how_to_use(folder),
        "</main></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _spread(results: Sequence[MicrographResult]) -> list[MicrographResult]:
    if len(results) <= MOST_PICTURES:
        return list(results)
    by_count = sorted(results, key=lambda result: (result.count, result.record.name))
    return evenly_taken(by_count, MOST_PICTURES)


def _cards(summary: RunSummary, results: Sequence[MicrographResult]) -> str:
    counts = [result.count for result in results]
    cards = [
        (f"{summary.particles:,}", f"particles kept of {summary.candidates:,} candidates"),
        (f"{np.median(counts):g}" if counts else "0", "particles per micrograph (median)"),
        (f"{summary.threshold:.4g}", f"score threshold ({summary.threshold_source})"),
    ]
    if summary.expected_precision is not None and summary.expected_recall is not None:
        cards.append((share_percent(summary.expected_precision), "of the picks are expected to be right"))
        cards.append((share_percent(summary.expected_recall), "of the particles are expected to be picked"))
    if summary.particles:
        cards += _size_cards(summary)
    return "<div class=cards>" + "".join(f"<div class=card><b>{b}</b>{escape(t)}</div>" for b, t in cards) + "</div>"


def _size_cards(summary: RunSummary) -> list[tuple[str, str]]:
    cards = []
    for one in summary.sizes:
        at = f" at {pixel_size_text(one)}" if len(summary.sizes) > 1 else ""
        if one.diameter_px is not None:
            angstrom = "" if one.diameter_angstrom is None else f" = {one.diameter_angstrom:g} Å"
            cards.append((f"{one.diameter_px:g} px{angstrom}", f"particle diameter{at}"))
        if one.box_px is not None:
            cards.append((f"{one.box_px} px", f"suggested box{at}"))
        if one.binned_box_px is not None:
            text = f"suggested binned box, {one.binned_pixel_size_angstrom:.3g} Å/px{at and f', binned from {at[4:]}'}"
            cards.append((f"{one.binned_box_px} px", text))
    return cards


def _problems(summary: RunSummary) -> str:
    learnt = f"<div class=muted>{escape(summary.prepared)}</div>" if summary.prepared else ""
    if not summary.particles:
        learnt += f"<div class=warn>{escape(why_nothing_is_kept(summary))}</div>"
    rows = [f"<li><b>{escape(name)}</b>: {escape(error)}</li>" for name, error in summary.failed.items()]
    failed = f"<div class=warn>{len(rows)} not picked:<ul>{''.join(rows[:50])}</ul></div>" if rows else ""
    warned = "".join(
        f"<div class=warn>{count} micrograph{'s' if count > 1 else ''}: {escape(text)}</div>"
        for text, count in sorted(summary.warnings.items(), key=lambda item: (-item[1], item[0]))[:20]
    )
    return learnt + failed + warned


# --------------------------------------------------------------------------------------------------------- charts


def _score_chart(summary: RunSummary, results: Sequence[MicrographResult]) -> str:
    candidates = [result.candidates for result in results]
    is_open = [np.asarray((one.reason == "") | (one.reason == BELOW_THRESHOLD)) for one in candidates]
    scores = [one.score[mask] for one, mask in zip(candidates, is_open, strict=True)]
    score = np.concatenate(scores) if scores else np.empty(0, np.float32)
    score = score[np.isfinite(score)]
    title = "Scores of all candidates that no other rule rejects"
    return _histogram(title, score, mark=summary.threshold, mark_text=f"threshold {summary.threshold:.4g}")


def _count_chart(results: Sequence[MicrographResult]) -> str:
    counts = np.array([result.count for result in results], dtype=np.float64)
    return _histogram("Particles per micrograph", counts, low=0.0)


def _histogram(
    title: str,
    values: NDArray[np.floating],
    *,
    low: float | None = None,
    mark: float | None = None,
    mark_text: str = "",
) -> str:
    """A histogram as SVG; bars below `mark` are grey."""
    if len(values) == 0:
        return f"<div class=panel><b>{escape(title)}</b><p class=muted>nothing to show</p></div>"
    width, height, base = 520, 220, 180
    low, high = float(values.min()) if low is None else low, float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    heights, edges = np.histogram(values.astype(np.float64), bins=40, range=(low, high))
    to_x = _scale(low, high, 40, width - 24)
    to_y = _scale(0, max(int(heights.max()), 1), base, 30)
    bars = "".join(
        f"<rect x='{to_x(left):.1f}' y='{to_y(n):.1f}' width='{to_x(right) - to_x(left) - 0.8:.1f}' "
        f"height='{base - to_y(n):.1f}' fill='{_KEPT if mark is None or right > mark else _LOW}'/>"
        for n, left, right in zip(heights.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    )
    ticks = "".join(
        f"<text x='{to_x(x):.0f}' y='{base + 16}' text-anchor='middle'>{_tick(x, high - low)}</text>"
        for x in np.linspace(low, high, 6)
    )
    ticks += f"<text x='36' y='34' text-anchor='end'>{int(heights.max())}</text>"
    ticks += f"<text x='36' y='{base}' text-anchor='end'>0</text>"
    line = ""
    if mark is not None and low <= mark <= high:
        x = to_x(mark)
        anchor, gap = ("start", 4) if x < width / 2 else ("end", -4)
        line = (
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='8' y2='{base}' stroke='#1c2430' stroke-dasharray='4 3'/>"
            f"<text x='{x + gap:.0f}' y='18' text-anchor='{anchor}'>{escape(mark_text)}</text>"
        )
    return (
        f"<div class=panel><b>{escape(title)}</b><svg viewBox='0 0 {width} {height}' width='{width}' font-size='11' "
        f"fill='#475467'>{bars}{ticks}{line}<line x1='40' x2='{width - 10}' y1='{base}' y2='{base}' stroke='#98a2b3'/>"
        "</svg></div>"
    )


def _tick(value: float, span: float) -> str:
    return f"{value:.0f}" if span >= 10 else f"{value:.1f}" if span >= 2 else f"{value:.2f}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


# ------------------------------------------------------------------------------------------------------- pictures


def _figure(folder: RunFolder, result: MicrographResult, number: int) -> str:
    record, candidates = result.record, result.candidates
    height, width = record.shape_yx or (1, 1)
    is_low = candidates.reason == BELOW_THRESHOLD
    is_other = ~candidates.is_kept & ~is_low
    stroke = max(width, height) / 340
    image = base64.b64encode(_bytes(folder, result)).decode()
    mean = f", mean score {result.mean_score:.3g}" if result.count else ""
    size = "" if record.pixel_size_angstrom is None else f", {record.pixel_size_angstrom:g} Å/px"
    maps = "".join(
        f"<div><img alt='' src='data:image/png;base64,{_encoded_map(folder, result, name)}'>{escape(name)}</div>"
        for name in record.maps
    )
    return (
        # pixel (0, 0) has its centre at the origin, so the picture starts half a pixel before it
        f"<figure tabindex=0><svg viewBox='-0.5 -0.5 {width} {height}' fill='none' stroke-width='{stroke:.2f}'>"
        f"<image id='{picture_id(number)}' x='-0.5' y='-0.5' width='{width}' height='{height}' "
        f"preserveAspectRatio='none' href='data:image/jpeg;base64,{image}'/>"
        f"{_circles(candidates.take(is_low), _LOW, 'low', stroke)}"
        f"{_circles(candidates.take(is_other), _REJECTED, 'other', stroke)}"
        f"{_circles(candidates.kept(), _KEPT, 'kept', stroke)}</svg>"
        f"<figcaption><b>{escape(record.name)}</b><br><span class=muted>{result.count} particles{mean}; "
        f"{width} × {height} px{size}</span></figcaption>"
        f"{f'<div class=maps>{maps}</div>' if maps else ''}</figure>"
    )


def _bytes(folder: RunFolder, result: MicrographResult) -> bytes:
    path = folder.image_path(result.record.key)
    return path.read_bytes() if path.is_file() else b""


def _encoded_map(folder: RunFolder, result: MicrographResult, name: str) -> str:
    path = folder.map_path(result.record.key, name)
    return base64.b64encode(path.read_bytes() if path.is_file() else b"").decode()


def _circles(picks: Picks, colour: str, css_class: str, stroke: float) -> str:
    """All circles as one path, which browsers draw far faster than thousands of elements."""
    if len(picks) == 0:
        return ""
    radius = np.where(np.isfinite(picks.diameter_px), picks.diameter_px / 2, 6 * stroke)
    arcs = "".join(
        f"M{x - r:.0f} {y:.0f}a{r:.0f} {r:.0f} 0 1 0 {2 * r:.0f} 0a{r:.0f} {r:.0f} 0 1 0 {-2 * r:.0f} 0"
        for (x, y), r in zip(picks.xy_px.tolist(), np.maximum(radius, 1).tolist(), strict=True)
    )
    return f"<path class={css_class} stroke='{colour}' d='{arcs}'/>"


# --------------------------------------------------------------------------------------------------------- tables


def _reasons(summary: RunSummary) -> str:
    rows = "".join(
        f"<tr><td>{escape(reason)}</td><td class=n>{count:,}</td></tr>"
        for reason, count in sorted(summary.rejected.items(), key=lambda item: -item[1])
    )
    kept = f"<tr><td><b>kept</b></td><td class=n><b>{summary.particles:,}</b></td></tr>"
    return f"<h2>What became of the candidates</h2><table>{kept}{rows}</table>"


def _micrograph_table(results: Sequence[MicrographResult]) -> str:
    rows = "".join(
        f"<tr><td>{escape(result.record.name)}</td><td class=n>{result.count}</td>"
        f"<td class=n>{len(result.candidates)}</td>"
        f"<td class=n>{'' if result.count == 0 else f'{result.mean_score:.3g}'}</td>"
        f"<td>{escape('; '.join(result.record.warnings))}</td></tr>"
        for result in results
    )
    head = (
        "<tr><th>micrograph</th><th class=n>particles</th><th class=n>candidates</th>"
        "<th class=n>mean score</th><th>warnings</th></tr>"
    )
    return f"<details><summary>All {len(results)} micrographs</summary><table>{head}{rows}</table></details>"


def _settings(settings: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(section)}</td><td>{escape(name)}</td><td><code>{escape(as_text(value))}</code></td></tr>"
        for section, values in settings.items()
        for name, value in values.items()
    )
    return f"<h2>Settings</h2><table>{rows}</table>"


def _how_to_use(folder: RunFolder) -> str:
    run = escape(folder.path.as_posix())
    return (
        "<h2>Use the picks</h2><p>RELION: Particle extraction, input coordinates "
        f"<code>{run}/autopick.star</code>. CryoSPARC: Import Particle Stack, <code>{run}/particles.star</code>. "
        f"Another threshold, at once: <code>cryopick rethreshold {run} --threshold NUMBER</code>. "
        f"Every candidate with its score and the reason for a rejection: <code>{run}/candidates/</code>.</p>"
    )
