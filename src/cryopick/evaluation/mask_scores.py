"""Scores of a map of particles against masks, class by class and pixel by pixel."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.evaluation.report import defined, markdown_table
from cryopick.io.files.atomic import write_text_atomic
from cryopick.metrics.segmentation import ConfusionMatrix


@dataclass(frozen=True, kw_only=True)
class MaskScores:
    """One map of every micrograph, such as that before a conditional random field, against the masks.

    Parameters
    ----------
    title : which map
    matrices : pixels by true class (rows) and found class, by micrograph
    """

    title: str
    matrices: Mapping[str, ConfusionMatrix]

    @property
    def pooled(self) -> ConfusionMatrix:
        """All pixels of all micrographs together."""
        first, *others = self.matrices.values()
        for other in others:
            first = first + other
        return first


@dataclass(frozen=True, kw_only=True)
class MaskEvaluation:
    """What `cryopick evaluate --masks` finds.

    Parameters
    ----------
    classes : their names, class 0 first
    scores : of each map of the run
    notes : sentences for the user
    """

    classes: tuple[str, ...]
    scores: tuple[MaskScores, ...]
    notes: tuple[str, ...] = ()


def as_mask_table(evaluation: MaskEvaluation) -> str:
    """A row for each map and class, as aligned text, also valid Markdown."""
    first = evaluation.scores[0]
    rows = []
    for scores in evaluation.scores:
        matrix = scores.pooled
        for number, name in enumerate(evaluation.classes):
            per_class = (matrix.recall, matrix.precision, matrix.iou, matrix.f1)
            cells = [
                f"{matrix.accuracy:.4f}",
                *(f"{values[number]:.4f}" for values in per_class),
                f"{matrix.mean_iou:.4f}",
            ]
            rows.append([scores.title, name, *(cell.replace("nan", "-") for cell in cells)])
    header = ["map", "class", "accuracy", "recall", "precision", "IoU", "F1", "mean IoU"]
    parts = [
        f"{len(first.matrices)} micrographs, {int(first.pooled.counts.sum()):,} pixels pooled",
        markdown_table(header, rows),
        *(f"Note: {note}" for note in evaluation.notes),
    ]
    return "\n\n".join(parts) + "\n"


def as_mask_object(evaluation: MaskEvaluation) -> dict[str, Any]:
    """Plain numbers, texts and lists; what is undefined is null."""
    found = {
        "classes": list(evaluation.classes),
        "maps": {scores.title: _scores_object(scores.pooled) for scores in evaluation.scores},
        "micrographs": {
            name: {scores.title: _scores_object(scores.matrices[name]) for scores in evaluation.scores}
            for name in evaluation.scores[0].matrices
        },
        "notes": list(evaluation.notes),
    }
    return {name: defined(value) for name, value in found.items()}


def _scores_object(matrix: ConfusionMatrix) -> dict[str, Any]:
    return {
        "accuracy": matrix.accuracy,
        "mean_iou": matrix.mean_iou,
        **{name: getattr(matrix, name).tolist() for name in ("recall", "precision", "iou", "f1")},
        "pixels": matrix.counts.tolist(),
    }


def write_mask_evaluation(evaluation: MaskEvaluation, folder: Path | str) -> list[Path]:
    """Write masks.json, masks.md and masks.csv (a row for each micrograph, map and class) into a folder.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    folder = Path(folder)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["micrograph", "map", "class", "accuracy", "recall", "precision", "iou", "f1"])
    for scores in evaluation.scores:
        for name, matrix in scores.matrices.items():
            columns = (matrix.recall, matrix.precision, matrix.iou, matrix.f1)
            for number, one in enumerate(evaluation.classes):
                values = [matrix.accuracy, *(column[number] for column in columns)]
                writer.writerow([name, scores.title, one, *(f"{value:.6f}" for value in values)])
    texts = {
        "masks.json": json.dumps(as_mask_object(evaluation), indent=1, ensure_ascii=False) + "\n",
        "masks.md": "# Maps against masks\n\n" + as_mask_table(evaluation),
        "masks.csv": buffer.getvalue(),
    }
    for name, text in texts.items():
        write_text_atomic(folder / name, text)
    return [folder / name for name in texts]
