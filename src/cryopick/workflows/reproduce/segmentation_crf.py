"""Segmentation + CRF: the pixel table of the abstract, with and without conditional random field, and picks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cryopick.errors import CryopickError
from cryopick.workflows.evaluate import evaluate_masks
from cryopick.workflows.reproduce.bench import IN_STEPS, Bench, Method, Trained
from cryopick.workflows.reproduce.figures import picks_figure
from cryopick.workflows.reproduce.results import Cell, PaperFigure, PaperTable
from cryopick.workflows.reproduce.stand_in import StandIn

STAND_INS_TRAINING = (StandIn(name="learnt", seed=51, count=4, recipe="segmentation-crf"),)
STAND_INS_TEST = (StandIn(name="unseen", seed=52, count=2, recipe="segmentation-crf"),)
OUR_CRFS = ("none", "dense", "conv", "learned")
OUR_NETWORKS = {"FCN": "small", "DeepLabv3": "deeplabv3-small"}
PUBLISHED_CRFS = ("none", "dense", "conv-published")
PUBLISHED_PRESETS = {"FCN": "article", "DeepLabv3": "article-deeplabv3"}
SMALL_TASKS: Mapping[str, Mapping[str, Any]] = {
    "FCN": {"backbone": "fcn-resnet50", "crop_px": 128, "batch_size": 2},
    "DeepLabv3": {"backbone": "deeplabv3-resnet50", "crop_px": 128, "batch_size": 2},
}
SMALL_TRAINING: Mapping[str, Any] = {
    **{**IN_STEPS, "steps": 8, "validate_every": 8, "checkpoint_every": 8, "workers": 0, "log_every": 1},
}
NUMBERS = ("accuracy", "recall", "precision", "IoU", "F1")


def _methods(bench: Bench) -> list[tuple[str, str, Method]]:
    """Network, random field, and the method."""
    found = [
        (
            f"ours, {network}",
            crf,
            Method(
                label=f"ours {network} {crf}",
                picker="segmentation-crf",
                settings={"backbone": backbone, "crf": crf, "full_maps": True},
            ),
        )
        for network, backbone in OUR_NETWORKS.items()
        for crf in OUR_CRFS
    ]
    given = bench.weights.get("segmentation-crf")
    weights = {"given weights": given} if given is not None else {}
    if given is None:
        for network in PUBLISHED_PRESETS:
            trained = _train(bench, network)
            if trained is not None:
                weights[network] = trained.weights
    for network, file in weights.items():
        for crf in PUBLISHED_CRFS:
            settings = {"as_": "article", "weights": str(file), "crf": crf, "full_maps": True}
            method = Method(label=f"published {network} {crf}", picker="segmentation-crf", settings=settings)
            found.append((f"published, {network}", crf, method))
    return found


def _train(bench: Bench, network: str) -> Trained | None:
    return bench.trained(
        f"segmentation-crf {network}",
        "segmentation-crf",
        sets=list(bench.training),
        preset=PUBLISHED_PRESETS[network],
        task=SMALL_TASKS[network] if bench.is_small else {},
        training=SMALL_TRAINING if bench.is_small else {},
    )


def pixel_table(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Pixels of the maps against the true silhouettes, and the picks that come of them."""
    methods = _methods(bench)
    rows: list[tuple[Cell, ...]] = []
    picks: list[tuple[Cell, ...]] = []
    for network, crf, method in methods:
        numbers = []
        found = []
        for name, data in bench.test.items():
            evaluation = bench.evaluation(method, data)
            nothing = (float("nan"),) * 3
            counts = None if evaluation is None else evaluation.main.counts
            found.append(nothing if counts is None else (counts.precision, counts.recall, counts.f1))
            numbers.append(_pixel_numbers(bench, method, name))
        rows.append((network, crf, *np.mean(numbers, axis=0).tolist()))
        picks.append((network, crf, *np.mean(found, axis=0).tolist()))
    yield PaperTable(
        name="pixel-table",
        title="Pixels of particles, with and without conditional random field",
        columns=("network", "random field", *NUMBERS, "mean IoU"),
        rows=tuple(rows),
        paper=tuple(("FCN and DeepLabv3", "with and without", *("over 0.9",) * 5, None) for _ in range(1)),
        notes=(
            "recall, precision, IoU and F1 are of the class particle; mean over the sets",
            "the abstract prints no table: 'over 90% accuracy, recall, precision, Intersection over Union (IoU) "
            "metrics, and F1-score on the synthetic dataset'",
        ),
    )
    yield PaperTable(
        name="picks",
        title="Picks from the maps, within a quarter of a diameter",
        columns=("network", "random field", "precision", "recall", "F1"),
        rows=tuple(picks),
        notes=("the abstract has no picks; each connected region of a published map is one",),
    )
    shown = [method for _, crf, method in methods if crf == "none"]
    yield picks_figure(bench, shown, name="picks", title="Picks on a micrograph of")


def _pixel_numbers(bench: Bench, method: Method, name: str) -> tuple[float, ...]:
    """Accuracy; recall, precision, IoU and F1 of particles; mean IoU."""
    try:
        found = evaluate_masks(bench.run_folder(method, bench.test[name]), bench.folders[name])
    except CryopickError as error:
        bench.note(str(error), of=f"maps of {method.label} on {name}")
        return (float("nan"),) * 6
    matrix = found.scores[-1].pooled
    particle = next(number for number, one in enumerate(found.classes) if "particle" in one)
    shares = (matrix.recall, matrix.precision, matrix.iou, matrix.f1)
    return matrix.accuracy, *(float(one[particle]) for one in shares), matrix.mean_iou


PARTS = {"pixel-table": pixel_table}
