"""CryoSegNet: Table 1, the three modules (Table S1), the ablations (Tables S7 to S11), and times (Fig. 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cryopick.io.weights import find_weights
from cryopick.pickers.cryosegnet import MODULES, PAPER_WIDTHS, u_net_ablations
from cryopick.workflows.reproduce.bench import IN_STEPS, TEMPLATE, Bench, Method, Trained
from cryopick.workflows.reproduce.figures import bars_picture, picks_figure
from cryopick.workflows.reproduce.maps import CRYOSEGNET_2, CRYOSEGNET_3, maps_of
from cryopick.workflows.reproduce.pixel_tables import NUMBERS, PIXEL_NOTE, pixel_rows
from cryopick.workflows.reproduce.results import Cell, PaperFigure, PaperTable

SMALL_WIDTHS = (8, 12, 16, 24, 32)
SMALL_TASK: Mapping[str, Any] = {"widths": SMALL_WIDTHS, "side_px": 256, "batch_size": 2}
ABLATION_TASK: Mapping[str, Any] = {**SMALL_TASK, "side_px": 128, "batch_size": 4}
SMALL_TRAINING: Mapping[str, Any] = {
    **{**IN_STEPS, "steps": 150, "learning_rate": 5e-3, "validate_every": 150, "checkpoint_every": 150},
    **{"workers": 0, "log_every": 5},
}
ABLATION_STEPS = 60
COMPACT: Mapping[str, Any] = {"crop_layers": 0, "predicted_iou": 0.05, "stability": 0.2, "kept_iou": 0.05}
"""What the compact Segment Anything of the package needs: it predicts lower IoUs than Meta's, and sees no crops."""
METHODS = ("template", "Deep Picker", "crYOLO", "Topaz", "CASSPER", "CryoTransformer", "CryoSegNet")
# Table 1: per set, precision, recall, F1 and Dice of each of METHODS
PAPER_TABLE: Mapping[str, tuple[int, tuple[tuple[float, float, float, float], ...]]] = {
    "10028": (
        26_391,
        (
            (0.845, 0.935, 0.888, 0.872),
            (0.848, 0.920, 0.883, 0.861),
            (0.807, 0.941, 0.869, 0.863),
            (0.696, 0.937, 0.799, 0.786),
            (0.877, 0.591, 0.706, 0.668),
            (0.751, 0.832, 0.789, 0.826),
            (0.833, 0.944, 0.885, 0.859),
        ),
    ),
    "10081": (
        39_352,
        (
            (0.853, 0.900, 0.876, 0.877),
            (0.868, 0.900, 0.883, 0.822),
            (0.822, 0.884, 0.852, 0.822),
            (0.732, 0.872, 0.796, 0.758),
            (0.915, 0.796, 0.851, 0.834),
            (0.860, 0.889, 0.874, 0.823),
            (0.835, 0.922, 0.876, 0.876),
        ),
    ),
    "10345": (
        15_894,
        (
            (0.743, 0.924, 0.824, 0.707),
            (0.912, 0.504, 0.649, 0.578),
            (0.648, 0.665, 0.656, 0.452),
            (0.544, 0.805, 0.650, 0.507),
            (0.598, 0.716, 0.652, 0.532),
            (0.744, 0.864, 0.799, 0.684),
            (0.746, 0.920, 0.824, 0.743),
        ),
    ),
    "11056": (
        125_908,
        (
            (0.717, 0.306, 0.429, 0.401),
            (0.717, 0.306, 0.429, 0.401),
            (0.726, 0.780, 0.752, 0.718),
            (0.764, 0.909, 0.830, 0.778),
            (0.768, 0.292, 0.423, 0.398),
            (0.853, 0.683, 0.758, 0.679),
            (0.757, 0.687, 0.720, 0.663),
        ),
    ),
    "10532": (
        87_933,
        (
            (0.790, 0.716, 0.751, 0.743),
            (0.621, 0.682, 0.650, 0.432),
            (0.756, 0.774, 0.765, 0.724),
            (0.732, 0.939, 0.823, 0.788),
            (0.848, 0.385, 0.530, 0.519),
            (0.813, 0.665, 0.732, 0.614),
            (0.796, 0.628, 0.702, 0.649),
        ),
    ),
    "10093": (
        56_394,
        (
            (0.672, 0.613, 0.641, 0.568),
            (0.756, 0.349, 0.478, 0.437),
            (0.623, 0.744, 0.678, 0.641),
            (0.610, 0.216, 0.319, 0.279),
            (0.632, 0.596, 0.613, 0.513),
            (0.560, 0.689, 0.618, 0.600),
            (0.716, 0.515, 0.600, 0.537),
        ),
    ),
    "10017": (
        49_391,
        (
            (0.814, 0.822, 0.818, 0.813),
            (0.795, 0.691, 0.739, 0.764),
            (0.824, 0.588, 0.686, 0.663),
            (0.847, 0.936, 0.889, 0.886),
            (0.860, 0.770, 0.813, 0.808),
            (0.745, 0.587, 0.657, 0.623),
            (0.859, 0.616, 0.718, 0.703),
        ),
    ),
}
PAPER_AVERAGES: tuple[tuple[float, float, float, float], ...] = (
    (0.776, 0.745, 0.747, 0.712),
    (0.788, 0.622, 0.673, 0.614),
    (0.744, 0.768, 0.751, 0.698),
    (0.704, 0.802, 0.729, 0.683),
    (0.785, 0.592, 0.655, 0.610),
    (0.761, 0.744, 0.747, 0.693),
    (0.792, 0.747, 0.761, 0.719),
)
PAPER_MODULES = {  # the article's text; Table S1 itself is in the supplement
    "U-Net": (0.747, 0.739, 0.71, None),
    "U-Net + SAM": (0.729, 0.820, 0.768, None),
    "U-Net + SAM + post-processing": (0.792, 0.747, 0.761, 0.719),
}


def _published(bench: Bench) -> Method | None:
    base = _train(bench, "cryosegnet", list(bench.training)) if "cryosegnet" not in bench.weights else None
    method = bench.as_published("cryosegnet", "article", "CryoSegNet", base)
    return None if method is None else _with_sam(bench, method)


def table_1(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Picks against the labels of the test proteins, picks to look at, and times."""
    methods = _methods(bench, _published(bench))
    yield _table_1(bench, methods)
    first = next(iter(bench.test.values()))
    yield picks_figure(bench, methods, name="figure-2", title="Fig. 2: picks on a micrograph of")
    seconds = {method.label: bench.seconds_per_micrograph(method, first) for method in methods if method.peer is None}
    yield PaperFigure(
        name="figure-5",
        title="Fig. 5: picking time per micrograph",
        png=bars_picture({label: one for label, one in seconds.items() if np.isfinite(one)}, x_label="seconds"),
        caption=f"on {first.name}, one process; the article's figures are of a GPU",
    )


def modules(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """What each of the three modules adds."""
    published = _published(bench)
    if published is not None:
        yield _modules(bench, published)


def _with_sam(bench: Bench, method: Method) -> Method:
    """The method with Meta's Segment Anything where it was given; else with the compact one, and that is noted."""
    sam = bench.weights.get("sam")
    if sam is None:
        bench.note(
            "Meta's Segment Anything: give its file with --weights sam=sam_vit_h_4b8939.pth; the compact one of this "
            "package stands in, which was trained on maps of another U-Net, with lower thresholds and without crops"
        )
        compact = {**COMPACT, "sam": str(find_weights("cryosegnet_sam"))}
        return Method(label=method.label, picker=method.picker, settings={**method.settings, **compact})
    return Method(label=method.label, picker=method.picker, settings={**method.settings, "sam": str(sam)})


def _methods(bench: Bench, published: Method | None) -> list[Method]:
    transformer = bench.weights.get("cryotransformer")
    if transformer is None:
        bench.note("CryoTransformer's row: give its authors' weights with --weights cryotransformer=FILE")
    bench.note("Deep Picker and CASSPER: not run by cryopick; the article's figures stand beside ours")
    as_article = {"as_": "article", "weights": str(transformer)}
    return [
        *([published] if published else []),
        *([Method(label="CryoTransformer", picker="cryotransformer", settings=as_article)] if transformer else []),
        Method(label="ours (cryosegnet)", picker="cryosegnet"),
        Method(label="ours (general)", picker="general"),
        TEMPLATE,
        *bench.peers(),
    ]


def _table_1(bench: Bench, methods: list[Method]) -> PaperTable:
    paper: list[tuple[Cell, ...]] = []
    for name, (particles, numbers) in PAPER_TABLE.items():
        paper += [(name, particles, label, *four) for label, four in zip(METHODS, numbers, strict=True)]
    paper += [("average", None, label, *four) for label, four in zip(METHODS, PAPER_AVERAGES, strict=True)]
    return PaperTable(
        name="table-1",
        title="Table 1: picks against the labels of seven proteins, seven pickers",
        columns=("set", "particles", "method", *NUMBERS),
        rows=tuple(pixel_rows(bench, methods)),
        paper=tuple(paper),
        notes=(PIXEL_NOTE,),
    )


def _modules(bench: Bench, published: Method) -> PaperTable:
    methods = [
        Method(label=label, picker="cryosegnet", settings={**published.settings, **changes})
        for label, changes in MODULES.items()
    ]
    rows = [row for row in pixel_rows(bench, methods) if row[0] == "average"]
    return PaperTable(
        name="table-s1",
        title="Table S1: what each module adds, average over the sets",
        columns=("module", *NUMBERS),
        rows=tuple((row[2], *row[3:]) for row in rows),
        paper=tuple((label, *four) for label, four in PAPER_MODULES.items()),
        notes=("without Segment Anything the picks are the regions of the U-Net's map", PIXEL_NOTE),
    )


def _train(bench: Bench, name: str, sets: list[str], *, steps: int | None = None, **task: Any) -> Trained | None:
    small: Mapping[str, Any] = {}
    training: Mapping[str, Any] = {}
    if bench.is_small:
        small = SMALL_TASK if steps is None else ABLATION_TASK
        training = SMALL_TRAINING
        if steps is not None:
            training = {**training, "steps": steps, "validate_every": steps, "checkpoint_every": steps}
    return bench.trained(name, "cryosegnet", sets=sets, task={**small, **task}, training=training)


def ablations(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Levels, gates, loss and denoising of the U-Net."""
    sets = list(bench.training)
    widths = SMALL_WIDTHS if bench.is_small else PAPER_WIDTHS
    for name, variants in u_net_ablations(widths).items():
        rows = []
        for label, task in variants.items():
            # the unchanged network is one and the same in every table
            words = f"cryosegnet ablation {name} {label}" if task else "cryosegnet ablation base"
            trained = _train(bench, words, sets, steps=ABLATION_STEPS, **task)
            rows.append((label, *_u_net_numbers(bench, words, trained)))
        yield PaperTable(
            name=f"ablation-{name}",
            title=f"Tables S7 to S11: ablation of {name}",
            columns=("variant", *NUMBERS, "validation Dice"),
            rows=tuple(rows),
            notes=(
                "regions of the U-Net's map, average over the test sets",
                f"{ABLATION_STEPS} steps of a reduced network each: the numbers differ, and nothing follows from them"
                if bench.is_small
                else "the supplement's figures are not in the article's text",
            ),
        )


def _u_net_numbers(bench: Bench, words: str, trained: Trained | None) -> tuple[Cell, ...]:
    if trained is None:
        return (None,) * 5
    method = Method(label=words, picker="cryosegnet", settings={"as_": "article", "weights": str(trained.weights)})
    method = _with_sam(bench, method)
    settings = {**method.settings, **MODULES["U-Net"]}
    rows = pixel_rows(bench, [Method(label=words, picker="cryosegnet", settings=settings)])
    return (*rows[-1][3:], trained.scores.get("dice", trained.scores.get("score")))


def _mapped(bench: Bench) -> list[Method]:
    return _methods(bench, _published(bench))


PARTS = {
    "table-1": table_1,
    "modules": modules,
    "ablations": ablations,
    "maps": maps_of(_mapped, (CRYOSEGNET_2, CRYOSEGNET_3)),
}
