"""`deepcryopicker`: clusters label its training set, a window classifier learns from it and picks. Needs no labels."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError, TrainingError
from cryopick.geometry.units import Length, parse_length
from cryopick.inference.device import chosen_device, is_bfloat16_fast
from cryopick.inference.models import HoldsModels
from cryopick.io.weights import card_path
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.deepcryopicker.classifier import (
    BOX_DIAMETERS,
    NetworkName,
    architecture,
    find_in_maps,
    load_classifier,
    paper_image,
    paper_scale,
    weights_in,
)
from cryopick.pickers.deepcryopicker.label_exhibits import label_exhibits
from cryopick.pickers.deepcryopicker.objects import (
    SMALLEST_DIAMETER_PX,
    Clustering,
    Preprocessing,
    WorkingImage,
    known_size,
    nothing_seen,
    to_picks,
    working_image,
)
from cryopick.pickers.deepcryopicker.published import (
    DEEPCRYOPICKER,
    PER_CLASS,
    BalancedSet,
    PartOfSet,
    find_published,
)
from cryopick.pickers.deepcryopicker.self_labels import TOO_STRONG, LabelledImage, label_images, why_inconsistent
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.pickers.deepcryopicker.windows import (
    BACKGROUND_SHARE,
    BAD,
    LABEL_SMOOTHING,
    DrawsWindows,
    ExampleImage,
    ExampleWindows,
    fit,
    judge,
    split_images,
    training_record,
)
from cryopick.pickers.exhibits import write_exhibits
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, Survey
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.types import Micrograph, Picks

if TYPE_CHECKING:
    from torch import nn


MODEL_FILE = "deepcryopicker.safetensors"
LABELS_FILE = "examples.npz"
BATCH_SIZE = {"compact": 96, "paper": 16}
LEARNING_RATE = {"compact": 3e-3, "paper": 1e-4}


class _OwnFolders:
    """Folders for the models of a picker that is used outside a run; removed with it, or when the process ends."""

    def new(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="cryopick-deepcryopicker-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder


@register_picker("deepcryopicker")
@dataclass(frozen=True, kw_only=True)
class DeepCryoPicker(HoldsModels):
    """Trains itself on a run's own micrographs, without labels (A. Al-Azzawi et al., BMC Bioinformatics 21, 2020, 509).

    AutoCryoPicker and SuperCryoPicker find objects; those that look right and alike become examples of top views, side
    views and irregular particles, places between them of background; a classifier learns to tell these apart and is
    applied to every place of every micrograph. One model serves the whole run and is kept in its folder.
    """

    name: ClassVar[str]
    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = DEEPCRYOPICKER
    has_calibrated_scores: ClassVar[bool] = False
    needs_extra: ClassVar[str] = "torch"
    sample_size: ClassVar[int] = 8
    """Micrographs of a run that labels are made from."""
    score_meaning: ClassVar[str] = "probability of being a particle rather than background, 0 to 1, not calibrated"
    default_threshold: ClassVar[float] = 0.5
    smallest_diameter_px: ClassVar[float] = SMALLEST_DIAMETER_PX
    enlarged_to_px: ClassVar[float] = NOMINAL_PARTICLE_PX
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"dark_part", "is_empty"}

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    model: Annotated[Path | None, "weights of an earlier run or training; trained on this run when not given"] = None
    network: Annotated[
        Literal["compact", "paper"], "compact: 0.3 M parameters; paper: AlexNet, very slow without a GPU"
    ] = "compact"
    classes: Annotated[int, "4, or 5 with bad objects as a class of their own instead of as background"] = 4
    activation: Annotated[Literal["relu", "sigmoid"], "of network = paper"] = "relu"
    initial: Annotated[Literal["he", "uniform"], "weights of network = paper at the start: he, or from [0, 1]"] = "he"
    optimizer: Annotated[Literal["adamw", "sgd"], "adamw with one learning-rate cycle, or sgd at a constant rate"] = (
        "adamw"
    )
    learning_rate: Annotated[float | None, "where not set, 0.003 (compact) or 0.0001 (paper)"] = None
    weight_decay: Annotated[float, "of the optimizer; for sgd the L2 term of the loss"] = 1e-2
    label_smoothing: Annotated[float, "of the cross-entropy, 0 to less than 1"] = LABEL_SMOOTHING
    background_share: Annotated[float, "of a batch, where training_set = drawn; the views share the rest"] = (
        BACKGROUND_SHARE
    )
    training_set: Annotated[
        Literal["drawn", "balanced"],
        "drawn: windows at random, shifted and turned; balanced: per_class samples of each class, as in the paper",
    ] = "drawn"
    per_class: Annotated[int, "samples of each class, where training_set = balanced"] = PER_CLASS
    bad_objects: Annotated[
        Literal["sure", "all"], "which objects teach what no particle is: those that surely are none, or all not chosen"
    ] = "sure"
    clustering: Annotated[Literal["lloyd", "thresholds"], "of the stage that labels, as for autocryopicker"] = "lloyd"
    postprocessing: Annotated[
        Literal["ours", "published"],
        "ours: one map of any view, its maxima; published: one map for each view, linked regions, boxes thinned by IoU",
    ] = "ours"
    steps: Annotated[int, "training steps"] = 300
    seed: Annotated[int, "seed of weights and windows"] = 0
    preprocessing: Annotated[
        Literal["corrected", "published"], "corrected: background removed, working size; published: the MATLAB chain"
    ] = "corrected"
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"

    body: Annotated[
        float | None, "diameter of the dark part over that of the particle; measured on the run when not given"
    ] = None

    _folders: _OwnFolders = field(default_factory=_OwnFolders, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.classes not in (4, 5):
            raise SettingsError(f"{self.name}: classes is {self.classes}, expected 4 or 5")
        if self.steps < 1:
            raise SettingsError(f"{self.name}: steps is {self.steps}, expected 1 or more")
        if self.per_class < 5:
            raise SettingsError(f"{self.name}: per_class is {self.per_class}, expected 5 or more")
        for name in ("label_smoothing", "background_share"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{self.name}: {name} is {getattr(self, name)}, expected 0 to less than 1")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise SettingsError(f"{self.name}: learning_rate is {self.learning_rate}, expected more than 0")
        if self.network == "compact" and (self.activation, self.initial) != ("relu", "he"):
            raise SettingsError(
                f"{self.name}: activation and initial are of network = paper; the compact network has ReLU and its own"
            )

    def precision_on(self, device: str) -> str:
        """bfloat16 where the device is fast in it, for the compact network."""
        return "bfloat16" if self.network == "compact" and is_bfloat16_fast(device) else "float32"

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """As `survey_in`, in a folder that lasts as long as this picker."""
        return self.survey_in(self._folders.new(), micrographs)

    def survey_in(self, folder: Path, micrographs: Sequence[Micrograph]) -> Survey:
        """Cluster, choose examples, train, and write the model into `folder`; nothing where a model is given.

        Raises
        ------
        TrainingError
            If the micrographs show no consistent kind of particle; the message says what was seen.
        """
        if self.model is not None:
            given = self.diameter or _diameter_of(self.model)
            if given is None and micrographs:  # a model of several sets has no diameter of its own
                measured = known_size(micrographs, None, None)
                if measured is None:
                    return Survey(is_empty=True, sentence=nothing_seen(len(micrographs)))
                given = measured.diameter
            return Survey(particle_size=given)
        if not micrographs:
            return NOTHING_SEEN
        size = known_size(micrographs, self.diameter, self.body)
        if size is None:
            raise TrainingError(
                f"{self.name} {nothing_seen(len(micrographs))}; check the contrast, give --diameter, or use `general`"
            )
        if size.doubt:
            raise TrainingError(f"{self.name} would learn from pieces or clumps of particles: {size.doubt}")
        labelled = label_run(micrographs, size, preprocessing=self.preprocessing, clustering=self.clustering)
        why = why_inconsistent(labelled.images) if labelled.images else "saw no micrograph larger than a particle"
        if why:
            raise TrainingError(f"{self.name} {why}; give --diameter, check the contrast, or use `general`")
        network, record = self._train(labelled, size)
        path = _write_model(folder, network, self, size, record)
        _write_labels(folder, labelled.images)
        write_exhibits(folder, "How this run trained its picker", label_exhibits(labelled.images, record))
        examples = ", ".join(f"{count} {name}" for name, count in record["examples"].items())
        sentence = (
            f"trained on {examples} of {len(labelled.images)} micrographs; {record['accuracy']:.0%} of held-out "
            "windows classified as the clusters say"
        )
        return Survey(particle_size=size.diameter, dark_part=size.body, trained_model=path, sentence=sentence)

    def _train(self, labelled: LabelledRun, size: ParticleSize) -> tuple[nn.Module, dict[str, Any]]:
        """A trained network and the record of its training."""
        import torch

        from cryopick.pickers.deepcryopicker.network import build_classifier

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = build_classifier(self._architecture()).to(chosen_device(self.device))
        images = network_images(
            labelled, size, network=self.network, preprocessing=self.preprocessing, bad_objects=self.bad_objects
        )
        diameter_px = network_diameter_px(labelled.micrographs[0], size, network=self.network)

        def windows(part: Sequence[ExampleImage]) -> ExampleWindows:
            return ExampleWindows(
                part,
                diameter_px=diameter_px,
                window_px=network.window_px,
                has_bad_class=self.classes == 5,
                background_share=self.background_share,
            )

        held_out: DrawsWindows
        examples: ExampleWindows | BalancedSet
        if self.training_set == "balanced":
            examples = BalancedSet(windows(images), per_class=self.per_class, seed=self.seed)
            held_out = PartOfSet(examples)
        else:
            train, validation = split_images(images)
            examples, others = windows(train), windows(validation)
            held_out = others if others.views else examples
        fit(
            network,
            examples,
            steps=self.steps,
            batch_size=BATCH_SIZE[self.network],
            learning_rate=self.learning_rate or LEARNING_RATE[self.network],
            seed=self.seed,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
        )
        network.cpu()
        return network, training_record(judge(network, held_out), examples.counts)

    def _architecture(self) -> dict[str, Any]:
        return architecture(self.network, self.classes, activation=self.activation, initial=self.initial)

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """Candidates, best first; `class_id` is the view: 1 top, 2 side, 3 irregular; `maps` holds the score."""
        from scipy.special import softmax

        try:
            seen = self.survey([micrograph]) if survey is None else survey
        except TrainingError as error:
            return Picks.none_on(micrograph, warnings=(str(error),))
        model = self.model or seen.trained_model
        if model is None or seen.particle_size is None:
            return Picks.none_on(micrograph)
        diameter_px = seen.particle_size.middle_px(micrograph.pixel_size_angstrom)
        path = weights_in(model)
        classifier = self._models.get(load_classifier, [path, card_path(path)], path, device=self.device)
        prepare_image = paper_image if classifier.is_paper else working_image
        image = prepare_image(micrograph, diameter_px=diameter_px, preprocessing=classifier.preprocessing)
        if image is None:
            return Picks.none_on(micrograph)
        own_px = diameter_px * image.scale.factor
        if self.postprocessing == "published":
            logits, step_px = classifier.logits(image.pixels, diameter_px=own_px)
            each = softmax(logits.astype(np.float64), axis=0)
            found = find_published(each[1:4], diameter=own_px / step_px, box=BOX_DIAMETERS * own_px / step_px)
            found = replace(found, xy_px=found.xy_px * step_px)
            score = each[1:4].max(axis=0).astype(np.float32)
            return to_picks(found, micrograph, image.scale, diameter_px, maps={"particle score": score})
        log_odds, view, step_px = classifier.maps(image.pixels, diameter_px=own_px)
        found = find_in_maps(log_odds, view, diameter=own_px / step_px)
        found = replace(found, xy_px=found.xy_px * step_px)
        probability = (1 / (1 + np.exp(-log_odds))).astype(np.float32)
        return to_picks(found, micrograph, image.scale, diameter_px, maps={"particle score": probability})


# ---------------------------------------------------------------------------------------------------------- labels


@dataclass(frozen=True, eq=False)
class LabelledRun:
    """Micrographs that are larger than a particle and not blank, with their objects and working images."""

    micrographs: list[Micrograph]
    images: list[LabelledImage]
    working: list[WorkingImage]


def label_run(
    micrographs: Sequence[Micrograph],
    size: ParticleSize,
    *,
    preprocessing: Preprocessing,
    clustering: Clustering = "lloyd",
) -> LabelledRun:
    """Objects and examples of all usable micrographs."""
    pairs = [
        (
            micrograph,
            working_image(
                micrograph,
                diameter_px=size.diameter.middle_px(micrograph.pixel_size_angstrom),
                preprocessing=preprocessing,
            ),
        )
        for micrograph in micrographs
    ]
    usable = [(micrograph, image) for micrograph, image in pairs if image is not None]
    images = [image for _, image in usable]
    return LabelledRun(
        [micrograph for micrograph, _ in usable],
        label_images(images, size, clustering=clustering) if images else [],
        images,
    )


def network_images(
    labelled: LabelledRun,
    size: ParticleSize,
    *,
    network: NetworkName,
    preprocessing: Preprocessing,
    bad_objects: Literal["sure", "all"] = "sure",
) -> list[ExampleImage]:
    """The examples of a run on images at the network's scale, without borders that hold no data."""
    images = []
    for image, micrograph, working in zip(labelled.images, labelled.micrographs, labelled.working, strict=True):
        own, xy_px, decoy_xy_px = working, image.xy_px, image.decoy_xy_px
        if network == "paper":
            diameter_px = size.diameter.middle_px(micrograph.pixel_size_angstrom)
            scaled = paper_image(micrograph, diameter_px=diameter_px, preprocessing=preprocessing)
            if scaled is not None:
                own = scaled
                xy_px, decoy_xy_px = (
                    own.scale.to_working_xy(working.scale.to_stored_xy(each)) for each in (xy_px, decoy_xy_px)
                )
        example = without_border(own, xy_px, class_ids(image, bad_objects=bad_objects), decoy_xy_px)
        images.append(replace(example, diameter_px=network_diameter_px(micrograph, size, network=network)))
    return images


def without_border(
    image: WorkingImage,
    xy_px: NDArray[np.float64],
    class_id: NDArray[np.int64],
    decoy_xy_px: NDArray[np.float64] | None = None,
) -> ExampleImage:
    """The part of an image that holds data; places in a border without any would be the easiest background."""
    height, width = image.pixels.shape
    corner = np.array([image.border.left, image.border.top], np.float64)
    decoys = np.zeros((0, 2)) if decoy_xy_px is None else decoy_xy_px - corner
    return ExampleImage(image.pixels[image.border.inside((height, width))], xy_px - corner, class_id, decoys)


def network_diameter_px(micrograph: Micrograph, size: ParticleSize, *, network: NetworkName) -> float:
    """Particle diameter at the network's scale."""
    if network == "compact":
        return NOMINAL_PARTICLE_PX
    stored_px = size.diameter.middle_px(micrograph.pixel_size_angstrom)
    return stored_px * paper_scale([BOX_DIAMETERS * stored_px])


def class_ids(image: LabelledImage, *, bad_objects: Literal["sure", "all"] = "sure") -> NDArray[np.int64]:
    """(n,) the view of good examples, `BAD` of bad ones, -1 of what may be either.

    Parameters
    ----------
    bad_objects : sure: `BAD` is only what is clearly none, since a ring with a gap is a particle still; all: everything
        that was not chosen, as the paper collects its class of negative detections
    """
    is_bad = image.reason == TOO_STRONG if bad_objects == "sure" else ~image.is_good
    kinds = np.where(image.is_good, image.view, np.where(is_bad, BAD, -1))
    return kinds.astype(np.int64)


# ------------------------------------------------------------------------------------------------------------ model


def _diameter_of(model: Path) -> Length | None:
    from cryopick.io.weights import read_card

    text = read_card(weights_in(model)).postprocessing.get("diameter")
    return None if text is None else parse_length(str(text))


def _write_model(
    folder: Path, network: nn.Module, picker: DeepCryoPicker, size: ParticleSize, record: dict[str, Any]
) -> Path:
    from cryopick.io.weights import ModelCard, save_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    card = ModelCard(
        picker=picker.name,
        architecture=picker._architecture(),
        preprocessing={"mode": picker.preprocessing, "particle_px": NOMINAL_PARTICLE_PX},
        postprocessing={"diameter": str(size.diameter), "body": size.body},
        data={
            "kind": "labelled by clustering",
            **{name: record[name] for name in ("examples", "classes", "confusion", "precision_recall")},
        },
        seed=picker.seed,
        steps=picker.steps,
        scores={"held_out_accuracy": record["accuracy"]},
        notes=("trained on one run's micrographs; meant for micrographs like them",),
    )
    path = folder / MODEL_FILE
    save_checkpoint(path, network.state_dict(), card)
    return path.resolve()


def _write_labels(folder: Path, labelled: Sequence[LabelledImage]) -> None:
    """Chosen and rejected examples with their micrographs at working size: `examples.npz`."""
    from cryopick.io.files.atomic import atomic_path

    arrays: dict[str, NDArray[Any]] = {}
    for number, image in enumerate(labelled):
        arrays[f"pixels{number}"] = image.pixels.astype(np.float16)
        arrays[f"mask{number}"] = np.packbits(image.mask, axis=1)
        arrays[f"xy_px{number}"], arrays[f"view{number}"] = image.xy_px, image.view
        arrays[f"reason{number}"], arrays[f"score{number}"] = image.reason, image.score
        arrays[f"extent_px{number}"] = image.extent_px
    with atomic_path(folder / LABELS_FILE) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # the stubs take the arrays for its own options
