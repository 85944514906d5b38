"""CryoTransformer: Table 3, the ablations of backbone and denoising, and picks to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cryopick.workflows.reproduce.bench import IN_STEPS, Bench, Method, Trained
from cryopick.workflows.reproduce.figures import picks_figure
from cryopick.workflows.reproduce.maps import CRYOTRANSFORMER_1, CRYOTRANSFORMER_2, maps_of
from cryopick.workflows.reproduce.pixel_tables import NUMBERS, PIXEL_NOTE, pixel_rows
from cryopick.workflows.reproduce.results import PaperFigure, PaperTable

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SMALL_TASK: Mapping[str, Any] = {
    **{
        "backbone": "resnet18",
        "backbone_width": 16,
        "queries": 60,
        "width": 64,
        "heads": 4,
        "layers": 2,
        "feed_width": 128,
        "dropout": 0.0,
    },
    **{"short_px": 160, "longest_px": 256, "augment": "none", "batch_size": 4, "validation_images": 4},
}
SMALL_TRAINING: Mapping[str, Any] = {
    **{**IN_STEPS, "steps": 120, "learning_rate": 3e-4, "validate_every": 120, "checkpoint_every": 120},
    **{"workers": 0, "log_every": 5},
}
ABLATION_STEPS = 12
"""Of each small ablation: enough for losses that differ, not for a network that picks."""
PAPER_AVERAGES = {  # Table 3, last row
    "crYOLO": (0.574, 0.1345, 0.204, 0.163),
    "Topaz": (0.642, 0.8815, 0.732, 0.671),
    "CryoTransformer": (0.7625, 0.7295, 0.740, 0.689),
}


def _methods(bench: Bench) -> list[Method]:
    base = _train(bench, "cryotransformer", list(bench.training)) if "cryotransformer" not in bench.weights else None
    published = bench.as_published("cryotransformer", "article", "CryoTransformer", base)
    return [
        *([published] if published else []),
        Method(label="ours (cryotransformer)", picker="cryotransformer"),
        Method(label="ours (general)", picker="general"),
        *bench.peers(),
    ]


def table_3(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Picks against the labels of the test proteins, and picks to look at."""
    methods = _methods(bench)
    yield PaperTable(
        name="table-3",
        title="Table 3: picks against the labels of the test proteins",
        columns=("set", "particles", "method", *NUMBERS),
        rows=tuple(pixel_rows(bench, methods)),
        paper=tuple(("average", None, name, *numbers) for name, numbers in PAPER_AVERAGES.items()),
        notes=(
            PIXEL_NOTE,
            "the article prints the Dice scores of CryoTransformer (0.689) and Topaz (0.671) in this order, and says "
            "that Topaz's is the highest",
        ),
    )
    yield picks_figure(bench, methods, name="picks", title="The article's Fig. S11: picks on a micrograph of")


def _train(bench: Bench, name: str, sets: list[str], *, steps: int | None = None, **task: Any) -> Trained | None:
    training = dict(SMALL_TRAINING) if bench.is_small else {}
    if bench.is_small and steps is not None:
        training |= {"steps": steps, "validate_every": steps, "checkpoint_every": steps, "log_every": 1}
    return bench.trained(
        name,
        "cryotransformer",
        sets=sets,
        task={**(SMALL_TASK if bench.is_small else {}), **task},
        training=training,
    )


def ablations(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Backbones, with and without denoising: losses at the end of the training, and on what was held out."""
    sets, rows = list(bench.training), []
    losses: dict[tuple[str, bool], tuple[float, float]] = {}
    for is_denoised in (True, False):
        for backbone in BACKBONES:
            task = {"backbone": backbone, **({} if is_denoised else {"denoising": "none"})}
            words = "denoised" if is_denoised else "raw"
            trained = _train(bench, f"cryotransformer {backbone} {words}", sets, steps=ABLATION_STEPS, **task)
            loss = float("nan") if trained is None else trained.losses.get("loss", float("nan"))
            held_out = float("nan") if trained is None else trained.scores.get("validation_loss", float("nan"))
            losses[backbone, is_denoised] = loss, held_out
            rows.append((words, backbone, loss, held_out, None if trained is None else trained.steps))
    note = (
        f"{ABLATION_STEPS} steps of a reduced network each: the losses differ, and nothing follows from them"
        if bench.is_small
        else "the article found ResNet-152 best and ResNet-18 worst in every loss"
    )
    yield PaperTable(
        name="tables-s5-s6",
        title="Tables S5 and S6: backbones, on denoised and on raw micrographs",
        columns=("micrographs", "backbone", "training loss", "validation loss", "steps"),
        rows=tuple(rows),
        notes=(note, "the supplement's figures are not in the article's text"),
    )
    best = "resnet152"
    change = [
        100 * (1 - with_ / without) if without else float("nan")
        for with_, without in zip(losses[best, True], losses[best, False], strict=True)
    ]
    yield PaperTable(
        name="table-s7",
        title="Table S7: how much lower the losses are with denoising, % (ResNet-152)",
        columns=("where", "training loss", "validation loss"),
        rows=(("here", *(float(one) if np.isfinite(one) else None for one in change)),),
        paper=(("article", 40.16, 34.56),),
        notes=(note,),
    )


PARTS = {
    "table-3": table_3,
    "ablations": ablations,
    "maps": maps_of(_methods, (CRYOTRANSFORMER_1, CRYOTRANSFORMER_2)),
}
