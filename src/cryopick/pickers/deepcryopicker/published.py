"""What the papers describe and ours does otherwise: balanced training set, augmentation, score map, suppression.

No program of the network was released: the repository of DeepCryoPicker holds AutoCryoPicker's demonstration. So these
parts follow the paper (A. Al-Azzawi et al., BMC Bioinformatics 21, 2020, 509); where it gives no number, the constant
says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import TrainingError
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.deepcryopicker.objects import VIEWS, Found
from cryopick.pickers.deepcryopicker.windows import BACKGROUND, BAD, CLASS_NAMES, ExampleWindows

_logger = logging.getLogger(__name__)

PER_CLASS = 1500
SPLIT = {"train": 960, "validation": 240, "test": 300}
"""Of each class's 1,500: 80 % to train and validate (1,200, of which 80 % to train), 20 % to test. The totals that the
paper gives in the same place (5,250 and 2,250 for five classes) are 70 % and 30 %, and contradict it."""
THRESHOLD = 0.5
CLOSENESS = 0.1
"""Neighbouring places are linked where both scores are above `THRESHOLD` and differ by no more; no number is given."""
LARGEST_REGION_DIAMETERS = 1.5
"""Linked places that cover more than a disc of so many diameters are no particle; no number is given."""
IOU_LIMIT = 0.3
"""Boxes that overlap a better one of their class by more are dropped; no number is given."""


# ------------------------------------------------------------------------------------------------------ training set


@dataclass(frozen=True)
class _Reference:
    """One sample: where its window is cut, and by how many quarters it is turned."""

    image: int
    x: float
    y: float
    sign: float
    turns: int


class BalancedSet:
    """The paper's training set: as many samples of every class, drawn once, enlarged by rotations, split three ways.

    A class's examples are chosen at random; where there are fewer than asked for, turned copies (90, 180, 270 degrees)
    make up for it. Where even those are too few for one class, all classes get as many as it has, and a warning says
    so. As in the paper the split knows nothing of copies, so those of one particle fall on both sides. Windows are cut
    when they are needed, so that 7,500 of them fit into any memory.

    Parameters
    ----------
    examples : where the windows are
    per_class : samples of each class
    has_background : whether places between the objects are a class; the paper's second experiment has none
    seed : of what is chosen and how it is split

    Raises
    ------
    TrainingError
        If there is no view to learn, or fewer than five samples of each class.
    """

    parts: ClassVar[tuple[str, ...]] = tuple(SPLIT)

    def __init__(
        self,
        examples: ExampleWindows,
        *,
        per_class: int = PER_CLASS,
        has_background: bool = True,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        self._examples = examples
        self.window_px = examples.window_px
        self.views = examples.views
        kinds = [*examples.views, *([BAD] if BAD in examples.by_class and examples.has_bad_class else [])]
        if not examples.views:
            raise TrainingError("there is no example of a particle to learn from; expected some of at least one view")
        rarest = min(kinds, key=lambda kind: len(examples.by_class[kind]))
        most = 4 * len(examples.by_class[rarest])
        if most < per_class:
            _logger.warning(
                "training set: %d samples of each class in the place of %d: class %r has %d examples, and turned by "
                "90, 180 and 270 degrees they make no more; more micrographs help",
                most, per_class, CLASS_NAMES[rarest], most // 4,
            )  # fmt: skip
            per_class = most
        if per_class < 5:
            raise TrainingError(f"{per_class} samples of each class cannot be split into {', '.join(SPLIT)}")
        self.per_class = per_class
        chosen: dict[int, list[_Reference]] = {}
        for kind in kinds:
            rows = examples.by_class[kind]
            order = np.concatenate([rng.permutation(len(rows)) + turn * len(rows) for turn in range(4)])[:per_class]
            chosen[kind] = [
                _Reference(int(number), float(x), float(y), float(sign), turns)
                for (number, x, y, sign), turns in ((rows[i % len(rows)], i // len(rows)) for i in order.tolist())
            ]
        if has_background:
            places = [examples.background_place(rng) for _ in range(per_class)]
            chosen[BACKGROUND] = [_Reference(int(n), x, y, 1.0, 0) for n, x, y in places]
        self._samples: dict[str, list[tuple[int, _Reference]]] = {part: [] for part in self.parts}
        self.counts = {CLASS_NAMES[kind]: len(examples.by_class.get(kind, [])) for kind in kinds}
        for kind, references in sorted(chosen.items()):
            order = rng.permutation(len(references))
            ends = np.cumsum([round(per_class * share / PER_CLASS) for share in SPLIT.values()])[:-1]
            for part, indices in zip(self.parts, np.split(order, ends), strict=True):
                self._samples[part] += [(kind, references[i]) for i in indices.tolist()]

    def __len__(self) -> int:
        """Samples to train on."""
        return len(self._samples["train"])

    def size(self, part: str) -> int:
        """Samples of one part: train, validation or test."""
        return len(self._samples[part])

    def draw(
        self, count: int, rng: np.random.Generator, *, is_augmented: bool = True, part: str = "train"
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Random samples of one part: windows (count, 1, s, s) and classes (count,)."""
        samples = self._samples[part]
        picked = [samples[i] for i in rng.integers(len(samples), size=count)]
        windows = [
            np.rot90(np.float32(ref.sign) * self._examples.cut(ref.image, ref.x, ref.y), ref.turns) for _, ref in picked
        ]
        if is_augmented:
            windows = [as_preprocessed(window, rng) for window in windows]
        return np.stack(windows)[:, None].astype(np.float32), np.array([kind for kind, _ in picked], np.int64)


@dataclass(frozen=True)
class PartOfSet:
    """One part of a balanced set, such as the samples to test on, as windows to draw from."""

    samples: BalancedSet
    part: str = "test"

    def draw(
        self, count: int, rng: np.random.Generator, *, is_augmented: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Windows (count, 1, s, s) and classes (count,) of this part."""
        return self.samples.draw(count, rng, is_augmented=is_augmented, part=self.part)


def as_preprocessed(window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A preprocessed version of a sample in its place: the paper's augmentation.

    One of: self-guided filter with a random standard deviation from 0 to 1 and a mask of 3 or 5 pixels, normalisation,
    histogram equalisation, restoration (Wiener), adaptive equalisation, opening. The result has the mean and the spread
    of the sample, so that the network sees the change and not another scale.
    """
    import cv2

    from cryopick.pickers.deepcryopicker.denoise import RAYLEIGH_ALPHA, wiener_adaptively
    from cryopick.processing.denoise.filters import guided_filter, min_max
    from cryopick.processing.denoise.histogram import equalize, equalize_adaptively, stretch_quantiles

    if not np.ptp(window) > 0:
        return window
    unit = min_max(window.astype(np.float64))
    changed: NDArray[Any]
    kind = rng.integers(6)
    if kind == 0:
        size, deviation = (3, 5)[rng.integers(2)], rng.uniform(0.01, 1)
        changed = guided_filter(unit, unit, window_px=size, epsilon=deviation**2, repeats_border=True)
    elif kind == 1:
        changed = stretch_quantiles(unit)
    elif kind == 2:
        changed = equalize(unit)
    elif kind == 3:
        changed = wiener_adaptively(unit, window_px=5)
    elif kind == 4:
        changed = equalize_adaptively(unit, clip_limit=0.02, rayleigh_alpha=RAYLEIGH_ALPHA)
    else:
        changed = cv2.morphologyEx(unit, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    changed = changed.astype(np.float64)
    spread = float(changed.std())
    if not spread > 0:
        return window
    return np.asarray((changed - changed.mean()) / spread * window.std() + window.mean(), np.float32)


# ---------------------------------------------------------------------------------------------------------- picking


def find_published(
    probability: NDArray[np.float64], *, diameter: float, box: float, threshold: float = THRESHOLD
) -> Found:
    """Boxes of score maps: cleaned, above the threshold, and thinned by non-maximum suppression for each class.

    Parameters
    ----------
    probability : (views, h, w) of each view at each place
    diameter, box : of a particle, and the side of its box, in places of the map
    """
    import cv2

    parts = []
    for view, plane in zip(VIEWS, probability, strict=True):
        cleaned = without_large_regions(plane, diameter=diameter, threshold=threshold)
        row, column = np.nonzero(cleaned > threshold)
        if len(row) == 0:
            continue
        score = cleaned[row, column]
        corners = np.column_stack([column - box / 2, row - box / 2, np.full((len(row), 2), box)])
        kept = cv2.dnn.NMSBoxes(corners.tolist(), score.tolist(), threshold, IOU_LIMIT)
        index = np.asarray(kept, np.intp).reshape(-1)
        parts.append((np.column_stack([column[index], row[index]]).astype(np.float64), score[index], view))
    if not parts:
        return Found(np.zeros((0, 2)), np.zeros(0, np.float32), np.zeros(0), np.zeros(0, np.int32))
    xy = np.concatenate([part[0] for part in parts])
    scores = np.concatenate([part[1] for part in parts]).astype(np.float32)
    views = np.concatenate([np.full(len(part[0]), part[2], np.int32) for part in parts])
    order = np.argsort(-scores, kind="stable")
    return Found(xy[order], scores[order], np.full(len(xy), box / 2), views[order])


def without_large_regions(
    plane: NDArray[np.float64], *, diameter: float, threshold: float = THRESHOLD
) -> NDArray[np.float64]:
    """A score map with 0 on places that are linked to too many others, as ice and carbon are.

    Neighbours, along rows and columns, are linked where both are above the threshold and differ by at most `CLOSENESS`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    height, width = plane.shape
    number = np.arange(plane.size).reshape(plane.shape)
    is_above = plane > threshold
    first, second = [], []
    for here, after in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        linked = is_above[here] & is_above[after] & (np.abs(plane[here] - plane[after]) <= CLOSENESS)
        first.append(number[here][linked])
        second.append(number[after][linked])
    rows, columns = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(plane.size, plane.size))
    _, label = connected_components(graph, directed=False)
    size = np.bincount(label)[label].reshape(height, width)
    return np.where(size > np.pi * (LARGEST_REGION_DIAMETERS * diameter / 2) ** 2, 0.0, plane)


# ---------------------------------------------------------------------------------------------------- configurations

_SIZES = (
    "radii, areas and boxes follow from the diameter, given or measured; the programs have them typed by hand for each "
    "data set (radii 13 to 85 half-size pixels, areas of 100 to 500)"
)
_CENTRES = "centres are those of the micrograph as stored; the programs write half-size ones, and only their last box"
_MEASURED = "the diameter is measured by our search where none is given; the papers do not say how they know radii"
_OPERATORS = "the MATLAB operators are written from their documentation; there are no published numbers to compare with"

AUTOCRYOPICKER: Mapping[ConfigurationName, Configuration] = {
    "article": Configuration(
        about="AutoCryoPicker as its paper describes it: published preprocessing, iterated clusters, circles, squares.",
        settings={"preprocessing": "published", "clustering": "lloyd", "min_support": 0.15, "as_found": True},
        departs=(_SIZES, _CENTRES, _MEASURED, _OPERATORS),
    ),
    "program": Configuration(
        about="AutoCryoPicker as its program runs: the same with fixed borders between the clusters.",
        settings={"preprocessing": "published", "clustering": "thresholds", "min_support": 0.15, "as_found": True},
        departs=(
            _SIZES,
            _CENTRES,
            _MEASURED,
            _OPERATORS,
            "side views are looked for as the paper describes; the program has no such code",
            "each particle has its own centre and the run's diameter; the program has the largest circle's box for all",
        ),
    ),
}
SUPERCRYOPICKER: Mapping[ConfigurationName, Configuration] = {
    "article": Configuration(
        about="SuperCryoPicker as its paper describes it: published preprocessing, super-pixels, k-means, components.",
        settings={"preprocessing": "published", "objects": "components", "as_found": True},
        departs=(
            _SIZES,
            _CENTRES,
            _OPERATORS,
            "super-pixels are 1/4 diameter wide; the paper sets 1,500 or 6,000 per half-size micrograph by hand",
            "components are those of the darkest cluster, as written; the program takes the cluster of fewest pixels",
        ),
    ),
    "program": Configuration(
        about="SuperCryoPicker as its program runs: the cluster of the fewest pixels, the largest 85 % of its objects.",
        settings={"preprocessing": "published", "objects": "components-of-rarest", "as_found": True},
        departs=(
            _SIZES,
            _CENTRES,
            _OPERATORS,
            "boxes are centred on their objects; the program anchors them at the corner of each object's own box",
            "the released program calls functions that it lacks, so it cannot be run to compare with",
        ),
    ),
}
_NETWORK: dict[str, Any] = {
    "network": "paper",
    "classes": 4,
    "preprocessing": "published",
    "activation": "sigmoid",
    "initial": "uniform",
    "optimizer": "sgd",
    "learning_rate": 1e-4,
    "weight_decay": 1e-4,
    "label_smoothing": 0.0,
    "training_set": "balanced",
    "bad_objects": "all",
    "postprocessing": "published",
    "as_found": True,
}
_NO_WEIGHTS = "no weights of the authors exist; the network is trained on the run, or by `cryopick train --as article`"
_NOT_TOLD = (
    "batch, epochs, momentum, weight of L2, the window's step, thresholds of the score map and the IoU limit are not "
    "told; ours are 16, 300 steps, 0.9, 1e-4, 0.1 boxes, 0.5, 0.1 and 0.3"
)
_LEARNS = "with sigmoids and weights from [0, 1] every unit is saturated and nothing is learnt; it is what is written"
DEEPCRYOPICKER: Mapping[ConfigurationName, Configuration] = {
    "article": Configuration(
        about="DeepCryoPicker as its paper describes it: 1,500 samples of each class, AlexNet, score maps, NMS.",
        settings={**_NETWORK, "clustering": "lloyd"},
        departs=(_NO_WEIGHTS, _NOT_TOLD, _LEARNS, _SIZES, _MEASURED, _OPERATORS),
    ),
    "program": Configuration(
        about="The same with what the released programs do where they do anything: fixed borders between clusters, and "
        "AlexNet's own activation and weights, since no program of the network was released.",
        settings={**_NETWORK, "clustering": "thresholds", "activation": "relu", "initial": "he"},
        departs=(_NO_WEIGHTS, _NOT_TOLD, _SIZES, _MEASURED, _OPERATORS),
    ),
}
