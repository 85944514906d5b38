"""A benchmark as Markdown, CSV, JSON and a web page with its pictures inside."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryopick.evaluation.benchmark_rows import Benchmark, BenchmarkRow
from cryopick.evaluation.report import (
    as_json_object,
    csv_text,
    defined,
    draw_curves,
    markdown_table,
    number_text,
    png_of,
)
from cryopick.geometry.units import share_decimal
from cryopick.io.files.atomic import write_bytes_atomic, write_text_atomic
from cryopick.pages.parts import Picture, Table
from cryopick.pages.render import render

HEADER = [
    *("set", "picker", "F1", "95 %", "precision", "recall", "AP", "best F1", "F1 at 0.5 D", "centring px"),
    *("false picks/micrograph", "s/micrograph", "CPU s/micrograph", "MB"),
]
COLUMNS_HELP = (
    "F1, precision and recall at the picker's default threshold, one-to-one within {tolerance:g} diameters, pooled "
    "over the micrographs of a set; 95 %: bootstrap interval of F1 over micrographs; AP: average precision over all "
    "thresholds; best F1: at the threshold that suits these labels best, a bound and not a result; centring: median "
    "distance of true picks from their particle; s/micrograph: time to read and pick, start of the program not "
    "counted; CPU s/micrograph: CPU time of the whole program, its start included; MB: its peak memory."
)


def as_markdown(benchmark: Benchmark) -> str:
    """One table over all sets and pickers, the machine, and what the columns mean."""
    errors = _error_lines(benchmark)
    parts = [
        "# Benchmark",
        markdown_table(HEADER, [_cells(row) for row in benchmark.rows]),
        COLUMNS_HELP.format(tolerance=benchmark.tolerance),
        "Sets:\n\n" + _listed(_set_lines(benchmark)),
        f"Machine: {benchmark.machine}",
    ]
    if errors:
        parts.append("Failed:\n\n" + _listed(errors))
    return "\n\n".join(parts) + "\n"


def as_json(benchmark: Benchmark) -> dict[str, Any]:
    """Everything measured, per row; what is undefined is null."""
    rows = []
    for row in benchmark.rows:
        known = {"picker": row.picker, "set": row.set_name, "error": row.error, "settings": dict(row.settings)}
        cost = {
            "seconds_per_micrograph": defined(row.seconds_per_micrograph),
            "wall_seconds": defined(row.wall_seconds),
            "cpu_seconds": defined(row.cpu_seconds),
            "peak_memory_bytes": row.peak_memory_bytes,
        }
        scores = None if row.evaluation is None else as_json_object(row.evaluation)
        rows.append(known | cost | {"evaluation": scores})
    return {"tolerance_diameters": benchmark.tolerance, "machine": asdict(benchmark.machine), "rows": rows}


def write_benchmark(benchmark: Benchmark, folder: Path | str) -> list[Path]:
    """Write benchmark.md, .csv, .json, .html, scores.png and one picture of curves per set.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    folder = Path(folder)
    pictures = {"scores.png": draw_scores(benchmark)}
    for one in benchmark.sets:
        evaluations = {
            row.picker: row.evaluation
            for row in benchmark.rows
            if row.set_name == one.name and row.evaluation is not None
        }
        if any(evaluation.main.curve is not None for evaluation in evaluations.values()) and one.particle_count:
            pictures[f"curves-{one.name}.png"] = draw_curves(evaluations)
    texts = {
        "benchmark.md": as_markdown(benchmark),
        "benchmark.csv": _as_csv(benchmark.rows),
        "benchmark.json": json.dumps(as_json(benchmark), indent=1, ensure_ascii=False) + "\n",
        "benchmark.html": _as_html(benchmark, pictures),
    }
    for name, picture in pictures.items():
        write_bytes_atomic(folder / name, picture)
    for name, text in texts.items():
        write_text_atomic(folder / name, text)
    return [folder / name for name in (*texts, *pictures)]


def draw_scores(benchmark: Benchmark) -> bytes:
    """PNG: F1 with its interval, and seconds per micrograph, for every set and picker."""
    from matplotlib.figure import Figure

    pickers = list(dict.fromkeys(row.picker for row in benchmark.rows))
    sets = [one.name for one in benchmark.sets]
    thickness = 0.8 / len(pickers)
    figure = Figure(figsize=(9, 1.2 + 0.9 * thickness * len(sets) * len(pickers)), dpi=120, layout="constrained")
    accuracy, speed = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for number, picker in enumerate(pickers):
        for place, name in enumerate(sets):
            row = next((r for r in benchmark.rows if (r.picker, r.set_name) == (picker, name)), None)
            if row is None or row.evaluation is None:
                continue
            height = place + (number - (len(pickers) - 1) / 2) * thickness
            label = picker if place == 0 else "_nolegend_"
            main = row.evaluation.main
            f1 = main.counts.f1
            if not math.isnan(f1):
                accuracy.barh(height, f1, thickness * 0.9, color=f"C{number}", label=label)
            low, high = main.intervals.f1.low, main.intervals.f1.high
            if not math.isnan(low):
                accuracy.plot([low, high], [height, height], color="black", linewidth=1)
            if not math.isnan(row.seconds_per_micrograph):
                speed.plot([row.seconds_per_micrograph], [height], "o", color=f"C{number}")
    accuracy.set(xlim=(0, 1), xlabel=f"F1 within {benchmark.tolerance:g} diameters", yticks=range(len(sets)))
    accuracy.set_yticklabels(sets)
    accuracy.set_ylim(len(sets) - 0.5, -0.5)
    if accuracy.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", fontsize=8, ncols=min(len(pickers), 4))
    known = [row.seconds_per_micrograph for row in benchmark.rows if row.seconds_per_micrograph > 0]
    if known:
        speed.set(
            xscale="log", xlim=(10 ** math.floor(math.log10(min(known))), 10 ** math.ceil(math.log10(max(known))))
        )
        speed.xaxis.set_minor_formatter(lambda *_: "")  # whole decades are labelled, more would overlap
        speed.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    speed.set(xlabel="seconds per micrograph")
    speed.grid(axis="x", which="both", color="0.93")
    speed.set_axisbelow(True)
    return png_of(figure)


def _cells(row: BenchmarkRow) -> list[str]:
    if row.evaluation is None:
        return [row.set_name, row.picker, "failed", *[""] * (len(HEADER) - 3)]
    main = row.evaluation.main
    loose = next((s for s in row.evaluation.tolerances if s.tolerance == 0.5), main)
    f1, best_f1, loose_f1 = main.counts.f1, main.best_f1, loose.counts.f1
    interval = main.intervals.f1
    interval_text = "-" if math.isnan(interval.low) else f"{_share(interval.low)}-{_share(interval.high)}"
    if math.isnan(main.counts.recall):  # no particles: F1 is 0 whatever the picker does, only its false picks tell
        f1, best_f1, loose_f1, interval_text = *[float("nan")] * 3, "-"
    scores = (main.counts.precision, main.counts.recall, main.average_precision, best_f1, loose_f1)
    memory = "-" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f}"
    return [
        row.set_name,
        row.picker,
        _share(f1),
        interval_text,
        *[_share(score) for score in scores],
        number_text(main.centring.median_px, 2),
        number_text(main.counts.false_positive / len(main.micrographs), 1),
        number_text(row.seconds_per_micrograph, 2),
        number_text(row.cpu_seconds / len(main.micrographs), 2),
        memory,
    ]


def _set_lines(benchmark: Benchmark) -> list[str]:
    lines = []
    for one in benchmark.sets:
        diameter = "unknown"
        if one.diameter_px is not None:
            low, high = one.diameter_px
            diameter = f"{low:g} px" if low == high else f"{low:g}-{high:g} px"
        lines.append(f"{one.name}: {len(one.images)} micrographs, {one.particle_count} particles, diameter {diameter}")
    return lines


def _error_lines(benchmark: Benchmark) -> list[str]:
    return [f"{row.picker} on {row.set_name}: {row.error}" for row in benchmark.rows if row.error]


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _as_csv(rows: Sequence[BenchmarkRow]) -> str:
    counted = [None if row.evaluation is None else row.evaluation.main.counts.false_positive for row in rows]
    lines = [[*_cells(row), false, row.error] for row, false in zip(rows, counted, strict=True)]
    return csv_text([*HEADER, "false picks", "error"], lines)


def _as_html(benchmark: Benchmark, pictures: dict[str, bytes]) -> str:
    return render(
        "benchmark.html",
        scores=Table(
            title="Benchmark",
            caption=COLUMNS_HELP.format(tolerance=benchmark.tolerance),
            columns=tuple(HEADER),
            rows=tuple(tuple(_cells(row)) for row in benchmark.rows),
        ),
        sets=_set_lines(benchmark),
        errors=_error_lines(benchmark),
        pictures=[Picture(title=Path(name).stem, png=data) for name, data in pictures.items()],
        machine=benchmark.machine,
    )


def _share(value: float) -> str:
    return "-" if math.isnan(value) else share_decimal(value)
