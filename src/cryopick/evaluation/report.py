"""An evaluation as a table to read, as JSON, and as files with pictures."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryopick.evaluation.scores import Evaluation, ToleranceScores
from cryopick.extras import is_installed, missing_extra
from cryopick.geometry.units import share_decimal
from cryopick.io.files.atomic import write_bytes_atomic, write_text_atomic
from cryopick.metrics.calibration import Calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)


def as_json_object(evaluation: Evaluation) -> dict[str, Any]:
    """Plain numbers, texts and lists; what is undefined is null."""
    size = evaluation.pixel_size_angstrom
    content = {
        "diameter_px": evaluation.diameter_px,
        "diameter_range_px": list(evaluation.diameter_range_px),
        "pixel_size_angstrom": size,
        "micrographs": len(evaluation.main.micrographs),
        "tolerances": [_tolerance_object(scores, size) for scores in evaluation.tolerances],
        "published": {
            "pixel_mask": None if evaluation.pixel_mask is None else asdict(evaluation.pixel_mask),
            "box_iou_0.6_one_to_one": asdict(evaluation.box_one_to_one),
            "box_iou_0.6_as_released_with_cryo_emmae": asdict(evaluation.box_as_released),
        },
        "calibration": _calibration_object(evaluation.calibration),
        "notes": list(evaluation.notes),
    }
    return {key: defined(value) for key, value in content.items()}


def as_table(evaluation: Evaluation) -> str:
    """The scores as aligned text, also valid Markdown."""
    size = evaluation.pixel_size_angstrom
    main = evaluation.main
    diameter = _diameter(evaluation)
    picks = main.counts.true_positive + main.counts.false_positive + main.counts.ignored
    particles = main.counts.true_positive + main.counts.false_negative
    columns = [f"within {scores.tolerance:g} D" for scores in evaluation.tolerances]
    rows: dict[str, Callable[[ToleranceScores], str]] = {
        "precision": lambda s: _with_interval(s.counts.precision, s.intervals.precision),
        "recall": lambda s: _with_interval(s.counts.recall, s.intervals.recall),
        "F1": lambda s: _with_interval(s.counts.f1, s.intervals.f1),
        "average precision": lambda s: _with_interval(s.average_precision, s.average_precision_interval),
        "best F1 on the curve": _best,
        "true picks": lambda s: str(s.counts.true_positive),
        "false picks": lambda s: str(s.counts.false_positive),
        "missed particles": lambda s: str(s.counts.false_negative),
        "ignored picks (uncertain labels)": lambda s: str(s.counts.ignored),
        "duplicate picks": lambda s: str(s.counts.duplicate),
        "centring error, median / mean": lambda s: _centring(s, size),
        "mean offset x, y (px)": _offset,
    }
    parts = [
        f"{len(main.micrographs)} micrographs, {picks} picks, {particles} particles, diameter {diameter}",
        markdown_table(
            ["one-to-one matching", *columns],
            [[name, *map(text, evaluation.tolerances)] for name, text in rows.items()],
        ),
        "Published measures, for comparison with papers only:\n\n" + _published_table(evaluation),
    ]
    if evaluation.calibration is not None:
        c = evaluation.calibration
        parts.append(
            f"Calibration: expected precision {_share(c.expected_precision, 3)}, "
            f"observed {_share(c.observed_precision, 3)}, "
            f"expected calibration error {c.expected_calibration_error:.3f}, Brier score {c.brier:.3f}"
        )
    parts += [f"Note: {note}" for note in evaluation.notes]
    return "\n\n".join(parts) + "\n"


def _diameter(evaluation: Evaluation) -> str:
    low_px, high_px = evaluation.diameter_range_px
    size = evaluation.pixel_size_angstrom
    if low_px < high_px * 0.995:
        return f"{low_px:.4g}-{high_px:.4g} px" + (f" ({low_px * size:.4g}-{high_px * size:.4g} Å)" if size else "")
    return f"{evaluation.diameter_px:.4g} px" + (f" ({evaluation.diameter_px * size:.4g} Å)" if size else "")


def write_evaluation(evaluation: Evaluation, folder: Path | str) -> list[Path]:
    """Write evaluation.json, evaluation.md, micrographs.csv and, where defined, curve.csv, curve.png, calibration.png.

    Without matplotlib the pictures are left out, which is logged.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    folder = Path(folder)
    written = []

    def write(name: str, content: str | bytes) -> None:
        path = folder / name
        if isinstance(content, bytes):
            write_bytes_atomic(path, content)
        else:
            write_text_atomic(path, content)
        written.append(path)

    write("evaluation.json", json.dumps(as_json_object(evaluation), indent=1, ensure_ascii=False) + "\n")
    write("evaluation.md", "# Evaluation\n\n" + as_table(evaluation))
    write("micrographs.csv", _micrographs_csv(evaluation.main))
    can_draw = is_installed("matplotlib")
    if evaluation.main.curve is not None:
        write("curve.csv", _curve_csv(evaluation.main))
        if can_draw:
            write("curve.png", draw_curves({"picks": evaluation}))
        else:
            _log.warning("%s: no curves are drawn: %s", folder, missing_extra("plots", "drawing"))
    if evaluation.calibration is not None and can_draw:
        write("calibration.png", draw_calibration(evaluation.calibration))
    return written


def draw_curves(evaluations: Mapping[str, Evaluation]) -> bytes:
    """PNG of the precision-recall curves, one colour per name; a dot marks the threshold in force."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 5.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for f1 in (0.2, 0.4, 0.6, 0.8, 0.9):
        recall = [f1 / (2 - f1) + i / 100 * (1 - f1 / (2 - f1)) for i in range(101)]
        axes.plot(recall, [f1 * r / (2 * r - f1) for r in recall], color="0.88", linewidth=0.8, zorder=0)
        axes.annotate(f"F1 {f1:g}", (1.0, f1 / (2 - f1)), color="0.65", fontsize=7, ha="right", va="bottom")
    for number, (name, evaluation) in enumerate(evaluations.items()):
        for scores in evaluation.tolerances:
            is_main = scores is evaluation.main
            label = f"{name}, within {scores.tolerance:g} D (F1 {_share(scores.counts.f1, 2)})"
            line = "-" if is_main else ":"
            if scores.curve is not None:
                label = label.removesuffix(")") + f", AP {_share(scores.average_precision, 2)})"
                axes.plot(scores.curve.recall, scores.curve.precision, label=label, color=f"C{number}", linestyle=line)
                label = "_nolegend_"
            axes.plot([scores.counts.recall], [scores.counts.precision], "o", color=f"C{number}", ms=5, label=label)
    axes.set(xlim=(0, 1.005), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    figure.legend(loc="outside lower center", fontsize=7, ncols=1 if len(evaluations) == 1 else 2)
    return png_of(figure)


def draw_calibration(calibration: Calibration) -> bytes:
    """PNG of observed against expected precision, with the number of picks per bin below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 5.2), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    has_picks = calibration.count > 0
    upper.plot(calibration.expected[has_picks], calibration.observed[has_picks], "o-", color="C0", ms=4)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="observed precision")
    width = calibration.edges[1] - calibration.edges[0]
    lower.bar(calibration.edges[:-1], calibration.count, width=width, align="edge", color="0.7", edgecolor="white")
    lower.set(xlabel="score (expected precision)", ylabel="picks")
    return png_of(figure)


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table whose columns are aligned in plain text too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [header, *rows]
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _published_table(evaluation: Evaluation) -> str:
    rows = []
    if evaluation.pixel_mask is not None:
        kinds = (
            ("pixel mask, pooled", evaluation.pixel_mask.pooled),
            ("pixel mask, mean over micrographs", evaluation.pixel_mask.mean),
            ("pixel mask, best micrograph (as CryoSegNet's script)", evaluation.pixel_mask.maximum),
        )
        rows = [[name, *[_share(x, 3) for x in (m.precision, m.recall, m.f1, m.dice)], ""] for name, m in kinds]
    for name, box in (
        ("box IoU > 0.6, one-to-one", evaluation.box_one_to_one),
        ("box IoU > 0.6, nearest pick (as cryo-EMMAE's script)", evaluation.box_as_released),
    ):
        numbers = [_share(x, 3) for x in (box.precision, box.recall, box.f1)]
        rows.append([name, *numbers, "", _share(box.mean_iou, 3)])
    return markdown_table(["measure", "precision", "recall", "F1", "Dice", "mean IoU"], rows)


def _tolerance_object(scores: ToleranceScores, size: float | None) -> dict[str, Any]:
    def angstrom(length_px: float) -> float | None:
        return None if size is None else length_px * size

    return {
        "tolerance_diameters": scores.tolerance,
        "precision": scores.counts.precision,
        "recall": scores.counts.recall,
        "f1": scores.counts.f1,
        "intervals_95": asdict(scores.intervals),
        "average_precision": scores.average_precision,
        "average_precision_interval_95": asdict(scores.average_precision_interval),
        "best_f1": scores.best_f1,
        "best_threshold": scores.best_threshold,
        "counts": asdict(scores.counts),
        "centring": asdict(scores.centring)
        | {"median_angstrom": angstrom(scores.centring.median_px), "mean_angstrom": angstrom(scores.centring.mean_px)},
        "per_micrograph": [
            {
                "name": one.name,
                "picks": one.pick_count,
                "particles": one.particle_count,
                "uncertain": one.uncertain_count,
            }
            | asdict(one.counts)
            for one in scores.micrographs
        ],
    }


def _calibration_object(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    values = asdict(calibration)
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in values.items()}


def defined(value: Any) -> Any:
    """JSON has no NaN: null instead."""
    if isinstance(value, dict):
        return {key: defined(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [defined(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _micrographs_csv(scores: ToleranceScores) -> str:
    header = ["micrograph", "picks", "particles", "uncertain", "true_positive", "false_positive", "false_negative"]
    rows = []
    for one in scores.micrographs:
        counts = one.counts
        labels = [one.name, one.pick_count, one.particle_count, one.uncertain_count]
        outcomes = [
            counts.true_positive,
            counts.false_positive,
            counts.false_negative,
            counts.ignored,
            counts.duplicate,
        ]
        ratios = [_share(x, 4) for x in (counts.precision, counts.recall, counts.f1)]
        rows.append([*labels, *outcomes, *ratios])
    return csv_text([*header, "ignored", "duplicate", "precision", "recall", "f1"], rows)


def _curve_csv(scores: ToleranceScores) -> str:
    curve = scores.curve
    if curve is None:
        raise ValueError("these scores have no curve")
    columns = (curve.threshold, curve.precision, curve.recall, curve.f1)
    return csv_text(
        ["threshold", "precision", "recall", "f1"],
        [[f"{value:.6g}" for value in row] for row in zip(*columns, strict=True)],
    )


def csv_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def png_of(figure: Figure) -> bytes:
    """A figure of matplotlib as the bytes of a file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})  # no version in the file: the same bytes anywhere
    return stream.getvalue()


def _with_interval(value: float, interval: Any) -> str:
    if math.isnan(value) or math.isnan(interval.low):
        return _share(value, 3)
    return f"{_share(value, 3)} ({_share(interval.low, 3)}-{_share(interval.high, 3)})"


def _best(scores: ToleranceScores) -> str:
    if math.isnan(scores.best_f1):
        return "-"
    return f"{_share(scores.best_f1, 3)} at {scores.best_threshold:.4g}"


def _centring(scores: ToleranceScores, size: float | None) -> str:
    error = scores.centring
    if error.pair_count == 0:
        return "-"
    text = f"{error.median_px:.2f} / {error.mean_px:.2f} px"
    return text if size is None else f"{text} ({error.median_px * size:.1f} / {error.mean_px * size:.1f} Å)"


def _offset(scores: ToleranceScores) -> str:
    error = scores.centring
    if error.pair_count == 0:
        return "-"
    return f"{error.mean_offset_x_px:+.2f}, {error.mean_offset_y_px:+.2f} (± {number_text(error.standard_error_px, 2)})"


def _share(value: float, digits: int) -> str:
    """Of 0 to 1: 1.000 is all, 0.000 nothing."""
    return "-" if math.isnan(value) else share_decimal(value, digits)


def number_text(value: float, digits: int = 3) -> str:
    """A dash where it is not defined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
