"""DeepCryoPicker: KLH (Table 7), the other sets (Table 5), curves of each view (Fig. 4), training sets (Table 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.evaluation.peers import diameter_of
from cryopick.evaluation.scores import Evaluation
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.pickers.deepcryopicker import ViewsResult, accuracy, score_views
from cryopick.workflows.reproduce.bench import IN_STEPS, Bench, Method
from cryopick.workflows.reproduce.figures import curves_picture, picks_figure
from cryopick.workflows.reproduce.results import Cell, PaperFigure, PaperTable
from cryopick.workflows.reproduce.stand_in import Barrels, StandIn

STAND_INS = (
    Barrels(name="klh-stand-in", seed=5, count=3),
    StandIn(name="apoferritin-stand-in", seed=61, count=3, diameter_angstrom=(120.0, 120.0)),
)
TOLERANCE = 0.25
"""Diameters between a pick and its particle; the paper does not say its own."""
OURS = ("deepcryopicker", "autocryopicker", "supercryopicker")
PAPER_KLH = {  # Table 7 is a picture; these are the text's: average of precision and recall, and F1
    "DeepCryoPicker": (0.945, 0.955),
    "RELION-2": (0.94, 0.935),
    "DeepEM": (0.89, 0.89),
    "PIXER": (0.875, 0.87),
    "DeepPicker": (0.875, 0.88),
}
TRAINING_SETS: Mapping[str, Mapping[str, Any]] = {
    "5 classes": {"classes": 5},
    "4, without background": {"classes": 4, "has_background": "no"},
    "4, without bad objects": {"classes": 4},
    "3, views alone": {"classes": 3},
}
PAPER_TRAINING = {"5 classes": 0.98, "4, without background": 0.99, "4, without bad objects": 0.9989}
"""Precision over recall of the first two, test accuracy of the third, as the text has them."""
SMALL_TASK: Mapping[str, Any] = {
    **{"network": "compact", "activation": "relu", "initial": "he", "preprocessing": "corrected"},
    **{"training_set": "balanced", "per_class": 100, "batch_size": 32},
}
SMALL_TRAINING: Mapping[str, Any] = {
    **{**IN_STEPS, "steps": 60, "optimizer": "adamw", "learning_rate": 3e-3, "validate_every": 60},
    **{"checkpoint_every": 60, "log_every": 10},
}


def _methods(bench: Bench) -> list[Method]:
    article = Method(label="DeepCryoPicker", picker="deepcryopicker", settings={"as_": "article"})
    ours = [Method(label=f"ours ({name})", picker=name, settings={"diameter": None}) for name in OURS]
    if bench.is_small:
        bench.note(
            "DeepCryoPicker as the article has it: trains an AlexNet for every run, hours without a GPU; left out of "
            "the reduced reproduction, give --full"
        )
        return [*ours, *bench.peers()]
    return [article, *ours, *bench.peers()]


def picking(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Precision, recall, accuracy, F1 and the area under the curve on every set, no diameter given."""
    methods = _methods(bench)
    rows: list[tuple[Cell, ...]] = []
    for name, data in bench.test.items():
        rows += [(name, method.label, *_numbers(bench.evaluation(method, data))) for method in methods]
    yield PaperTable(
        name="tables-5-and-7",
        title="Tables 5 and 7: picks on every set, nobody tells the diameter",
        columns=("set", "method", "precision", "recall", "accuracy", "F1", "area under the curve"),
        rows=tuple(rows),
        paper=tuple(("KLH", name, both, both, None, f1, None) for name, (both, f1) in PAPER_KLH.items()),
        notes=(
            "accuracy is equation 3, true picks among picks and missed particles",
            "the paper's tables are pictures; its text gives one value for precision and recall together",
        ),
    )
    yield picks_figure(bench, methods, name="figure-3", title="Fig. 3: picks on a micrograph of")


def _numbers(evaluation: Evaluation | None) -> tuple[float, ...]:
    if evaluation is None:
        return (float("nan"),) * 5
    main = evaluation.main
    counts = main.counts
    return counts.precision, counts.recall, accuracy(counts), counts.f1, main.average_precision


def views(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Precision over recall of each view, where the labels tell views (a column class_id: 1 top, 2 side, 3 other)."""
    method = next(one for one in _methods(bench) if one.picker == "deepcryopicker")
    rows: list[tuple[Cell, ...]] = []
    for name, data in bench.test.items():
        if any(labels.class_id is None or not labels.class_id.any() for labels in data.labels.values()):
            bench.note(f"curves of views on {name}: its labels do not tell views (a column class_id: 1 top, 2 side)")
            continue
        if bench.evaluation(method, data) is None:
            continue
        found = _views(bench, method, data)
        rows += [
            (
                name,
                view,
                scores.counts.precision,
                scores.counts.recall,
                scores.counts.f1,
                scores.curve.average_precision,
            )
            for view, scores in (("all", found.all_views), *found.by_view.items())
        ]
        rows.append((name, "view of right picks is right", None, None, None, found.view_accuracy))
        yield PaperFigure(
            name=f"figure-4-{name}",
            title=f"Fig. 4: precision over recall of each view, {name}",
            png=curves_picture(
                {
                    view: list(zip(scores.curve.recall.tolist(), scores.curve.precision.tolist(), strict=True))
                    for view, scores in found.by_view.items()
                },
                x_label="recall",
                y_label="precision",
                is_share=True,
            ),
        )
    yield PaperTable(
        name="views",
        title="Fig. 4 in numbers: picks of each view against particles of it",
        columns=("set", "view", "precision", "recall", "F1", "area under the curve"),
        rows=tuple(rows),
        notes=("the article prints curves only; its mean of precision and recall is 0.97",),
    )


def _views(bench: Bench, method: Method, data: BenchmarkSet) -> ViewsResult:
    picked = bench.picked(method, data)
    names = match_micrograph_names(data.labels, picked.candidates)
    labels = [labels for name, labels in data.labels.items() if name in names]
    found = [picked.candidates[names[name]] for name in data.labels if name in names]
    is_open = [picked.is_threshold_only[names[name]] for name in data.labels if name in names]
    return score_views(
        [one.take(rows) for one, rows in zip(found, is_open, strict=True)],
        [one.kept() for one in found],
        [one.xy_px for one in labels],
        [np.asarray(one.class_id, np.int64) for one in labels],
        max_distance_px=TOLERANCE * diameter_of(data),
    )


def training_sets(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """The classifier on training sets of 3, 4 and 5 classes that the pickers made themselves."""
    name = next(iter(bench.test))
    rows: list[tuple[Cell, ...]] = []
    for label, task in TRAINING_SETS.items():
        trained = bench.trained(
            f"deepcryopicker {label}",
            "deepcryopicker",
            sets=[name],
            task={**(SMALL_TASK if bench.is_small else {}), **task},
            training=SMALL_TRAINING if bench.is_small else {},
        )
        scores = {} if trained is None else trained.scores
        rows.append((label, scores.get("accuracy", scores.get("score")), None if trained is None else trained.steps))
    yield PaperTable(
        name="table-3",
        title=f"Table 3: the classifier's accuracy on held-out windows, by training set ({name})",
        columns=("training set", "accuracy", "steps"),
        rows=tuple(rows),
        paper=tuple((label, value, None) for label, value in PAPER_TRAINING.items()),
        notes=(
            "the paper's first two figures are average precision, its third is test accuracy; it has no row of views "
            "alone",
        ),
    )


PARTS = {"picking": picking, "views": views, "training-sets": training_sets}
