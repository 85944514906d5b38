"""Cryo-EMMAE: Tables 1 and S1, numbers of micrographs and clusters (Fig. 2), latent space (Fig. 3, Table S3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cryopick.errors import CryopickError
from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.evaluation.peers import diameter_of
from cryopick.evaluation.scores import Evaluation
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.micrographs import read_micrograph
from cryopick.pickers.cryoemmae import (
    LatentModel,
    LatentSample,
    load_model,
    mean_distances,
    sample_latent_space,
    scatter_png,
)
from cryopick.workflows.reproduce.bench import IN_STEPS, Bench, Method, Trained
from cryopick.workflows.reproduce.figures import curves_picture, picks_figure
from cryopick.workflows.reproduce.maps import CRYOEMMAE_2, CRYOEMMAE_3, maps_of
from cryopick.workflows.reproduce.results import Cell, PaperFigure, PaperTable

NUMBERS = ("IoU", "recall", "precision", "F1")
SMALL_TASK: Mapping[str, Any] = {
    **{"width": 32, "depth": 2, "heads": 1, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    **{"windows_per_crop": 32, "batch_size": 32},
}
SMALL_TRAINING: Mapping[str, Any] = {
    **{**IN_STEPS, "steps": 60, "warmup_steps": 6, "learning_rate": 2e-3},
    **{"validate_every": 60, "checkpoint_every": 60, "workers": 0, "log_every": 5},
}
CLUSTERS = (3, 4, 5, 6)
MICROGRAPHS = (1, 2, 5)
PAPER_TABLE: tuple[tuple[Cell, ...], ...] = (
    ("10291", "Topaz", 0.425, 0.446, 0.238, 0.276),
    ("10291", "crYOLO", 0.447, 0.467, 0.404, 0.372),
    ("10291", "cryo-EMMAE", 0.567, 0.585, 0.481, 0.512),
    ("10077", "Topaz", 0.612, 0.651, 0.258, 0.362),
    ("10077", "crYOLO", 0.322, 0.285, 0.279, 0.255),
    ("10077", "cryo-EMMAE", 0.575, 0.596, 0.482, 0.518),
    ("10590", "Topaz", 0.481, 0.512, 0.322, 0.300),
    ("10590", "crYOLO", 0.551, 0.558, 0.376, 0.397),
    ("10590", "cryo-EMMAE", 0.470, 0.479, 0.444, 0.444),
    ("10816", "Topaz", 0.515, 0.320, 0.053, 0.090),
    ("10816", "crYOLO", 0.644, 0.645, 0.254, 0.346),
    ("10816", "cryo-EMMAE", 0.554, 0.573, 0.492, 0.514),
)
BOX_NOTE = (
    "boxes around picks and labels, hit at IoU 0.6 or more, as the released program counts: one pick may serve several "
    "labels, so precision can exceed 1"
)


def _methods(bench: Bench) -> list[tuple[str, Method]]:
    """What each was trained on, and the method: with the weights given, else one per training set."""
    given = bench.weights.get("cryoemmae")
    if given is not None:
        settings = {"as_": "article", "weights": str(given)}
        return [("given weights", Method(label="cryo-EMMAE", picker="cryoemmae", settings=settings))]
    methods = []
    for name in bench.training:
        trained = _train(bench, f"cryoemmae {name}", [name])
        found = bench.as_published("cryoemmae", "article", f"cryo-EMMAE trained on {name}", trained)
        methods += [(name, found)] if found else []
    return methods


def box_numbers(evaluation: Evaluation | None) -> tuple[float, float, float, float]:
    """IoU, recall, precision and F1 as released; NaN where there is no evaluation."""
    if evaluation is None:
        return (float("nan"),) * 4
    box = evaluation.box_as_released
    return box.mean_iou, box.recall, box.precision, box.f1


def _train(bench: Bench, name: str, sets: Sequence[str], **changes: Any) -> Trained | None:
    return bench.trained(
        name,
        "cryoemmae",
        sets=sets,
        task={**(SMALL_TASK if bench.is_small else {}), **changes},
        training=SMALL_TRAINING if bench.is_small else {},
    )


def table_1(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Each training on all test sets, and picks to look at."""
    methods = _methods(bench)
    others = [Method(label="blob", picker="blob"), Method(label="ours (cryoemmae)", picker="cryoemmae")]
    rows: list[tuple[Cell, ...]] = []
    means: list[tuple[Cell, ...]] = []
    for trained_on, method in [*methods, *(("-", one) for one in (*others, *bench.peers()))]:
        numbers = []
        for name, data in bench.test.items():
            numbers.append(box_numbers(bench.evaluation(method, data)))
            rows.append((trained_on, method.label, name, *numbers[-1]))
        means.append((trained_on, method.label, *np.mean(numbers, axis=0).tolist()))
    yield PaperTable(
        name="table-1",
        title="Table 1: each training on all test sets, mean over the sets",
        columns=("trained on", "method", *NUMBERS),
        rows=tuple(means),
        paper=PAPER_TABLE,
        notes=(BOX_NOTE, "Topaz with its pretrained network; the article trained it on each set"),
    )
    yield PaperTable(
        name="table-s1",
        title="Table S1: each training on each test set",
        columns=("trained on", "method", "set", *NUMBERS),
        rows=tuple(rows),
        notes=(BOX_NOTE, "the supplement's figures are not in the article's text"),
    )
    yield picks_figure(bench, [method for _, method in methods], name="picks", title="Picks on a micrograph of")


def clusters(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """The number of clusters of a micrograph's vectors, with the first training."""
    for _, method in _methods(bench)[:1]:
        changed = {
            count: Method(
                label=f"{method.label} {count} clusters",
                picker=method.picker,
                settings={**method.settings, "clusters": count},
            )
            for count in CLUSTERS
        }
        yield from _by_count(
            bench,
            changed,
            counted="clusters",
            name="figure-2b",
            title="Fig. 2B: clusters per micrograph",
            note="the article chose 5: precision rises and recall falls with their number",
        )


def micrographs(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Trainings on a few micrographs of the first set."""
    name = next(iter(bench.training))
    methods = {}
    for count in [one for one in MICROGRAPHS if one <= len(bench.training[name].images)]:
        trained = _train(bench, f"cryoemmae {count} micrographs", [bench.few(name, count)])
        method = bench.as_published("cryoemmae", "article", f"cryo-EMMAE trained on {count} micrographs", trained)
        if method is not None:
            methods[count] = method
    yield from _by_count(
        bench,
        methods,
        counted="micrographs",
        name="figure-2a",
        title="Fig. 2A: micrographs trained on",
        note="the article: five micrographs suffice",
    )


def _by_count(
    bench: Bench, methods: Mapping[int, Method], *, counted: str, name: str, title: str, note: str
) -> Iterator[PaperTable | PaperFigure]:
    """A table and its curves over a number, mean over the sets."""
    rows: list[tuple[Cell, ...]] = [(count, *_means(bench, method)) for count, method in methods.items()]
    yield PaperTable(
        name=name,
        title=f"{title}, mean over the sets",
        columns=(counted, *NUMBERS),
        rows=tuple(rows),
        notes=(BOX_NOTE, note),
    )
    if rows:
        yield PaperFigure(name=name, title=title, png=_lines(rows, title.partition(": ")[2]))


def _means(bench: Bench, method: Method) -> tuple[float, ...]:
    return tuple(
        np.mean([box_numbers(bench.evaluation(method, data)) for data in bench.test.values()], axis=0).tolist()
    )


def _lines(rows: Sequence[tuple[Cell, ...]], x_label: str) -> bytes:
    lines = {
        number: [(float(row[0] or 0), float(row[place + 1] or 0)) for row in rows]
        for place, number in enumerate(NUMBERS)
    }
    return curves_picture(lines, x_label=x_label, y_label="mean over the sets")


def latent_space(bench: Bench) -> Iterator[PaperTable | PaperFigure]:
    """Latent vectors of particles and background in two principal components, and their distances."""
    methods = _methods(bench)[:1]
    if not methods:
        return
    model = load_model(methods[0][1].settings["weights"])
    samples = []
    for name, data in bench.test.items():
        try:
            samples.append(_sample(model, data))
        except CryopickError as error:
            bench.note(str(error), of=f"latent vectors of {name}")
    if not samples:
        return
    yield PaperFigure(
        name="figure-3",
        title="Fig. 3: latent vectors of particles and background along their principal components",
        png=scatter_png(samples),
        caption="separation: how often a particle's vector lies farther along the line from background to particles",
    )
    yield PaperTable(
        name="separation",
        title="How well the latent space tells particles from background",
        columns=("micrograph", "separation"),
        rows=tuple((sample.name, sample.separation) for sample in samples),
        notes=("0.5 is chance, 1 is apart; the article shows pictures only",),
    )
    kinds = [f"{kind}, {letter}" for letter in "AB" for kind in ("particles", "background")]
    distances = mean_distances(samples[0], samples[min(1, len(samples) - 1)])
    yield PaperTable(
        name="table-s3",
        title="Table S3: mean Euclidean distance between latent vectors of two micrographs, A and B",
        columns=("", *kinds),
        rows=tuple((kind, *row.tolist()) for kind, row in zip(kinds, distances, strict=True)),
        notes=(
            f"A is {samples[0].name}, B is {samples[min(1, len(samples) - 1)].name}",
            "the supplement's figures are not in the article's text",
        ),
    )


def _sample(model: LatentModel, data: BenchmarkSet) -> LatentSample:
    path = data.images[0]
    micrograph = read_micrograph(path, pixel_size_angstrom=data.pixel_size_angstrom)
    labels = data.labels[match_micrograph_names([path.stem], data.labels)[path.stem]]
    found = sample_latent_space(model, micrograph, labels.xy_px, diameter_px=diameter_of(data))
    return replace(found, name=f"{data.name}, {path.stem}")


def _mapped(bench: Bench) -> list[Method]:
    """The first training, and what it is compared with."""
    others = [Method(label="blob", picker="blob"), Method(label="ours (cryoemmae)", picker="cryoemmae")]
    return [*(method for _, method in _methods(bench)[:1]), *others]


PARTS = {
    "table-1": table_1,
    "clusters": clusters,
    "micrographs": micrographs,
    "latent-space": latent_space,
    "maps": maps_of(_mapped, (CRYOEMMAE_2, CRYOEMMAE_3)),
}
