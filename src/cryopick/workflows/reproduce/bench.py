"""What the tables of all papers are made with: sets, pickers run on them, networks trained for them.

Everything lies in the output folder and is made once: the same command again goes on where it was stopped.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import CryopickError, InputError, RunFolderError
from cryopick.evaluation.benchmark_rows import BenchmarkSet
from cryopick.evaluation.peers import (
    CRYOLO,
    TOPAZ,
    PeerRun,
    convert_to_mrc,
    diameter_of,
    find_program,
    run_cryolo,
    run_topaz,
)
from cryopick.evaluation.scored_sets import PickedSet, read_picked_set
from cryopick.evaluation.scores import Evaluation
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.io.images.micrographs import read_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.runs.folder import RunFolder
from cryopick.runs.settings import make_settings
from cryopick.training.folder import CONFIG
from cryopick.training.logs import LOSS_TABLE, VALIDATION_TABLE, read_table
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.train import TrainPlan, plan_training, resumed_plan, train_picker

IN_STEPS: Mapping[str, None] = {
    **dict.fromkeys(("epochs", "warmup_epochs", "validate_every_epochs", "checkpoint_every_epochs")),
}
"""A training told in steps where its preset tells it in passes over the data."""
MOST_NAMED = 3
TOPAZ_THRESHOLD = 0.0
"""A logit: above it, Topaz takes a pick for a particle rather than not."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of a table: a picker with its settings, or another program.

    Parameters
    ----------
    label : in the table
    picker : a registered picker; empty for another program
    settings : of the picker
    peer : runs another program: called with the set, a scratch folder, and the sizes of the images by name
    """

    label: str
    picker: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    peer: Callable[[BenchmarkSet, Path, Mapping[str, tuple[int, int]]], PeerRun] | None = None

    @property
    def is_told_diameter(self) -> bool:
        """Whether the picker is given the particle diameter of the set: of the published systems one takes it."""
        return "as_" not in self.settings or self.picker == "cryoemmae"


TEMPLATE = Method(label="template", picker="template")
"""Gets its reference from the labels of each set."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network trained for a table.

    Parameters
    ----------
    losses : the mean training losses of the last tenth of its steps, by name
    scores : of its last validation, by name
    """

    weights: Path
    steps: int
    losses: Mapping[str, float]
    scores: Mapping[str, float]


@dataclass(kw_only=True)
class Bench:
    """Where one paper's tables are made.

    Parameters
    ----------
    test, training : labelled sets by name
    folders : of all sets, by name, as `cryopick train --data` takes them
    is_small : reduced networks and short trainings, as the stand-in needs; else the papers' own
    weights : of pickers as published, by picker
    cryolo_model : for crYOLO
    problems : sentences on what is not there, with what each holds of where it is the same for several; grows
    """

    output: Path
    test: Mapping[str, BenchmarkSet]
    training: Mapping[str, BenchmarkSet]
    folders: dict[str, Path]
    is_small: bool
    weights: Mapping[str, Path]
    cryolo_model: Path | None
    tell: Callable[[str], None]
    problems: dict[str, list[str]] = field(default_factory=dict)

    # ---------------------------------------------------------------------------------------------------- picking

    def run_folder(self, method: Method, data: BenchmarkSet) -> Path:
        """Where the picks of a method on a set lie."""
        return self.output / "runs" / data.name / slug(method.label)

    def evaluation(self, method: Method, data: BenchmarkSet) -> Evaluation | None:
        """Scores of a method on a set; None where it failed, and `problems` says why."""
        self.tell(f"{method.label} on {data.name}")
        try:
            if method == TEMPLATE:
                method = self.template(data)
            return self._picker(method, data) if method.peer is None else _evaluation_of_peer(method.peer, data)
        except CryopickError as error:
            self.note(str(error), of=f"{method.label} on {data.name}")
            return None

    def note(self, problem: str, *, of: str = "") -> None:
        """Keep a sentence on what is missing, once, with all that it is true of."""
        known = self.problems.setdefault(problem, [])
        if of and of not in known:
            known.append(of)

    def told(self) -> list[str]:
        """The problems as sentences."""
        return [f"{_shortened(of)}: {problem}" if of else problem for problem, of in self.problems.items()]

    def _picker(self, method: Method, data: BenchmarkSet) -> Evaluation:
        given = dict(method.settings)
        if data.pixel_size_angstrom is not None:
            given.setdefault("pixel_size_angstrom", data.pixel_size_angstrom)
        if method.is_told_diameter and data.diameter_px is not None:
            low, high = data.diameter_px
            given.setdefault("diameter", f"{low:g}px" if low == high else f"{low:g}-{high:g}px")
        settings, folder = make_settings(method.picker, **given), self.run_folder(method, data)
        images = [str(path) for path in data.images]
        try:
            pick_to_folder(images, folder, settings, workers=1)
        except RunFolderError:  # of other settings, or weights trained anew
            pick_to_folder(images, folder, settings, workers=1, overwrite=True)
        return evaluate(folder, data.labels)

    def template(self, data: BenchmarkSet) -> Method:
        """The `template` picker with one reference: the mean image of the labelled particles of the first micrograph.

        Raises
        ------
        InputError
            If that micrograph has none.
        """
        path = self.output / "references" / f"{slug(data.name)}.mrcs"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            image = mean_particle(data)
            write_mrc(path, image[None], pixel_size_angstrom=data.pixel_size_angstrom)
        return Method(label="template", picker="template", settings={"references": str(path)})

    def peers(self) -> list[Method]:
        """The other programs that can be run here; the others are named in `problems`."""
        found = []
        topaz, cryolo = find_program(TOPAZ), find_program(CRYOLO)
        if topaz is not None:
            found.append(Method(label="Topaz", peer=partial(_topaz, topaz)))
        else:
            self.note("Topaz: not installed (pip install topaz-em, GPL, in an environment of its own)")
        if cryolo is not None and self.cryolo_model is not None:
            found.append(Method(label="crYOLO", peer=partial(_cryolo, cryolo, self.cryolo_model)))
        else:
            self.note("crYOLO: not installed, or no model given with --cryolo-model")
        return found

    def picked(self, method: Method, data: BenchmarkSet) -> PickedSet:
        """The picks of a picker's finished run, kept or not."""
        return read_picked_set(self.run_folder(method, data))

    def seconds_per_micrograph(self, method: Method, data: BenchmarkSet) -> float:
        """Reading and picking, of a picker's finished run; NaN where there is none."""
        records = RunFolder(self.run_folder(method, data)).records() if method.peer is None else []
        seconds = [record.seconds for record in records if record.is_done]
        return float(np.mean(seconds)) if seconds else float("nan")

    # --------------------------------------------------------------------------------------------------- training

    def as_published(self, picker: str, word: str, label: str, trained: Trained | None) -> Method | None:
        """A picker as published: with the authors' weights where given, else with those trained here."""
        weights = self.weights.get(picker) or (trained.weights if trained else None)
        if weights is None:
            self.note(f"{label}: no weights; give the authors' with --weights {picker}=FILE")
            return None
        return Method(label=label, picker=picker, settings={"as_": word, "weights": str(weights)})

    def trained(
        self,
        name: str,
        picker: str,
        *,
        sets: Sequence[str],
        preset: str = "article",
        task: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        data_settings: Mapping[str, Any] | None = None,
    ) -> Trained | None:
        """A network trained on these sets, or None where it failed and `problems` says why.

        Parameters
        ----------
        name : of its folder
        task, training : changes to the preset; a full reproduction should have none but those of an ablation
        """
        if not sets:
            self.note("none of the training sets is there, so nothing is trained", of=f"training {name}")
            return None
        self.tell(f"training {name}")
        try:
            plan = plan_training(
                picker,
                data=str(self.together(sets)),
                preset=preset,
                task=task,
                training=training,
                data_settings=data_settings,
            )
            return self._trained(plan, self.output / "trained" / slug(name))
        except CryopickError as error:
            self.note(str(error), of=f"training {name}")
            return None

    def _trained(self, plan: TrainPlan, folder: Path) -> Trained:
        is_begun = (folder / CONFIG).exists()
        if is_begun:
            _require_same(resumed_plan(folder, plan), plan, folder)
        result = train_picker(plan, folder, resume=is_begun)
        losses, scores = read_table(folder / LOSS_TABLE), read_table(folder / VALIDATION_TABLE)
        last = losses[-max(1, len(losses) // 10) :]
        return Trained(
            weights=result.weights,
            steps=result.steps,
            losses={key: float(np.mean([row[key] for row in last])) for key in losses[-1]} if losses else {},
            scores=scores[-1] if scores else {},
        )

    def few(self, name: str, count: int) -> str:
        """The first micrographs of a training set as a set of its own, without labels; its name."""
        part = f"{name}, {count} micrographs"
        images = {path.name: path for path in self.training[name].images[:count]}
        self.folders[part] = self._linked(part, images)
        return part

    def together(self, sets: Sequence[str]) -> Path:
        """A folder that holds these sets and no others: links, so that nothing is copied."""
        if len(sets) == 1:
            return self.folders[sets[0]]
        return self._linked("+".join(sets), {name: self.folders[name] for name in sets})

    def _linked(self, title: str, paths: Mapping[str, Path]) -> Path:
        folder = self.output / "data" / slug(title)
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in paths.items():
            link = folder / name
            if not link.is_symlink():
                link.symlink_to(path.absolute(), target_is_directory=path.is_dir())
        return folder


def _evaluation_of_peer(
    peer: Callable[[BenchmarkSet, Path, Mapping[str, tuple[int, int]]], PeerRun], data: BenchmarkSet
) -> Evaluation:
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        run = peer(data, project, convert_to_mrc(data, project))
    return evaluate(run.picks, data.labels)


def _topaz(program: str, data: BenchmarkSet, project: Path, shapes_yx: Mapping[str, tuple[int, int]]) -> PeerRun:
    run = run_topaz(program, data, project, shapes_yx=shapes_yx)
    return replace(run, picks={name: one.take(one.score > TOPAZ_THRESHOLD) for name, one in run.picks.items()})


def _cryolo(
    program: str, model: Path, data: BenchmarkSet, project: Path, shapes_yx: Mapping[str, tuple[int, int]]
) -> PeerRun:
    return run_cryolo(program, data, project, shapes_yx=shapes_yx, model=model)


def mean_particle(data: BenchmarkSet) -> NDArray[np.float32]:
    """(n, n) mean of the labelled particles of the first micrograph that has some, 1.5 diameters wide.

    Raises
    ------
    InputError
        If no micrograph has a labelled particle that lies wholly inside.
    """
    half = max(2, round(0.75 * diameter_of(data)))
    names = match_micrograph_names([path.stem for path in data.images], data.labels)
    for path in data.images:
        pixels = read_micrograph(path).pixels
        boxes = []
        for x, y in np.rint(data.labels[names[path.stem]].xy_px).astype(int) if path.stem in names else ():
            if half <= x < pixels.shape[1] - half and half <= y < pixels.shape[0] - half:
                boxes.append(pixels[y - half : y + half, x - half : x + half])
        if boxes:
            return np.asarray(np.mean(boxes, axis=0), np.float32)
    raise InputError(f"{data.name}: no labelled particle lies wholly inside, so there is no reference for templates")


def _require_same(there: TrainPlan, wanted: TrainPlan, folder: Path) -> None:
    if there.sections() != wanted.sections():
        raise RunFolderError(f"{folder}: holds a training with other settings; remove it, or use another --output")


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


def slug(text: str) -> str:
    """A text as a folder name: letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.+-]+", "-", text.lower()).strip("-")
