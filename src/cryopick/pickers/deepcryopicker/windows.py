"""Windows to train a classifier on: balanced, turned, shifted and augmented; and the loop that fits it in minutes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import TrainingError
from cryopick.inference.channels_last import channels_last
from cryopick.pickers.deepcryopicker.objects import VIEWS
from cryopick.processing.spread import evenly_taken

if TYPE_CHECKING:
    from torch import Tensor, nn

BACKGROUND, BAD = 0, 4
CLASS_NAMES = {BACKGROUND: "background", **VIEWS, BAD: "bad object"}
JITTER = 0.05
"""Largest shift of an example from its centre, in diameters."""
OFF_CENTRE = (0.38, 0.75)
"""A window this many diameters beside a particle is background, so that the score falls off around centres."""
FAR = 0.8
"""Background is so many diameters away from every object, chosen or not."""
NEIGHBOUR = 0.35
BACKGROUND_SHARE = 0.5
"""Of a batch; the views share the rest equally. Equal shares for all classes would make a third of it background."""
OFF_CENTRE_SHARE, BAD_SHARE = 0.4, 0.2
"""Of the background: places beside particles, and bad objects. In crowded micrographs few other places lie away from
every object, so without the bad ones, nearly all of them decoys, the network would never see noise that looks right."""
LABEL_SMOOTHING = 0.05
"""Labels come from clusters and some are wrong."""


@dataclass(frozen=True, eq=False)
class ExampleImage:
    """One micrograph with examples, at the network's scale.

    Parameters
    ----------
    pixels : (h, w) float32
    xy_px : (n, 2) all objects, so that none is taken for background
    class_id : (n,) int: a view, `BAD`, or -1 for objects that are neither example nor background
    decoy_xy_px : (m, 2) places where the inverted image looks as if a particle were there; bad objects, inverted
    diameter_px : of this micrograph's particles at this scale, where sets of several sizes are learnt from
    """

    pixels: NDArray[np.float32]
    xy_px: NDArray[np.float64]
    class_id: NDArray[np.int64]
    decoy_xy_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    diameter_px: float | None = None


class ExampleWindows:
    """Balanced random windows of some micrographs.

    Parameters
    ----------
    diameter_px : of a particle in those images that do not say their own
    window_px : side of a window
    has_bad_class : whether bad objects are a class of their own (the paper's five) or background (its four)
    background_share : of a batch; the classes of particles share the rest
    """

    def __init__(
        self,
        images: Sequence[ExampleImage],
        *,
        diameter_px: float,
        window_px: int,
        has_bad_class: bool = False,
        background_share: float = BACKGROUND_SHARE,
    ) -> None:
        from scipy.spatial import cKDTree

        self.window_px, self.has_bad_class, self.background_share = window_px, has_bad_class, background_share
        self._diameters_px = [image.diameter_px or diameter_px for image in images]
        self._pad = window_px // 2 + int(np.ceil(max(self._diameters_px, default=diameter_px))) + 1
        self._images = [np.pad(image.pixels, self._pad, mode="symmetric") for image in images]
        self._shapes = [image.pixels.shape for image in images]
        self._trees = [cKDTree(image.xy_px) if len(image.xy_px) else None for image in images]
        rows = [
            (number, x, y, 1, kind)
            for number, image in enumerate(images)
            for (x, y), kind in zip(image.xy_px, image.class_id, strict=True)
            if kind > 0
        ]
        rows += [(number, x, y, -1, BAD) for number, image in enumerate(images) for x, y in image.decoy_xy_px]
        table = np.array(rows, np.float64).reshape(-1, 5)
        self.by_class = {
            kind: table[table[:, 4] == kind, :4] for kind in (*VIEWS, BAD) if bool((table[:, 4] == kind).any())
        }
        """(n, 4) by class: micrograph, x, y, and -1 where the window is to be inverted."""
        self.views = [kind for kind in VIEWS if kind in self.by_class]

    @property
    def counts(self) -> dict[str, int]:
        """Examples by class name."""
        return {CLASS_NAMES[kind]: len(rows) for kind, rows in self.by_class.items()}

    def draw(
        self, count: int, rng: np.random.Generator, *, is_augmented: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Windows (count, 1, s, s) and classes (count,), `background_share` background, the views in equal shares."""
        if not self.views:
            raise TrainingError("there is no example of a particle to learn from; expected some of at least one view")
        kinds = np.full(count, BACKGROUND, np.int64)
        share = count - round(self.background_share * count)
        particles = [*self.views, *([BAD] if self.has_bad_class and BAD in self.by_class else [])]
        kinds[:share] = np.resize(particles, share)
        windows = np.stack([self._window(int(kind), rng, is_augmented) for kind in kinds])
        return windows[:, None], kinds

    def _window(self, kind: int, rng: np.random.Generator, is_augmented: bool) -> NDArray[np.float32]:
        if kind == BACKGROUND:
            number, x, y, sign = self._background(rng)
        else:
            number, x, y, sign = self._example(kind, rng)
            if is_augmented:
                x, y = np.array([x, y]) + rng.uniform(-JITTER, JITTER, 2) * self._diameters_px[int(number)]
        window = np.float32(sign) * self.cut(int(number), x, y)
        return augmented(window, rng) if is_augmented else window

    def _example(self, kind: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
        number, x, y, sign = self.by_class[kind][rng.integers(len(self.by_class[kind]))].tolist()
        return number, x, y, sign

    def _background(self, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """A place between the objects, beside a particle, or on a bad object."""
        choice = rng.random()
        if choice < BAD_SHARE and BAD in self.by_class and not self.has_bad_class:
            return self._example(BAD, rng)
        for _ in range(20):
            if choice < BAD_SHARE + OFF_CENTRE_SHARE:
                kind = self.views[rng.integers(len(self.views))]
                number, x, y, _ = self._example(kind, rng)
                diameter_px = self._diameters_px[int(number)]
                angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*OFF_CENTRE) * diameter_px
                x, y = x + distance * np.cos(angle), y + distance * np.sin(angle)
                least = NEIGHBOUR * diameter_px
            else:
                number, x, y = self._place(rng)
                least = FAR * self._diameters_px[int(number)]
            tree = self._trees[int(number)]
            if tree is None or tree.query((x, y))[0] >= least:
                break
            choice = rng.random()  # crowded: try the other kind of place
        return number, x, y, 1.0

    def _place(self, rng: np.random.Generator) -> tuple[float, float, float]:
        number = int(rng.integers(len(self._images)))
        height, width = self._shapes[number]
        return float(number), rng.uniform(0, width - 1), rng.uniform(0, height - 1)

    def background_place(self, rng: np.random.Generator) -> tuple[float, float, float]:
        """Micrograph and place of a patch of plain background, away from every object.

        Raises
        ------
        TrainingError
            If a thousand tries find none.
        """
        for _ in range(1000):
            number, x, y = self._place(rng)
            tree = self._trees[int(number)]
            if tree is None or tree.query((x, y))[0] >= FAR * self._diameters_px[int(number)]:
                return number, x, y
        raise TrainingError("no place of these micrographs is free of objects, so there is no background to learn from")

    def cut(self, number: int, x: float, y: float) -> NDArray[np.float32]:
        """The window around a place, to the nearest pixel; beyond the image's border it is mirrored."""
        image = self._images[number]
        corner = np.rint([y, x]).astype(int) + self._pad - self.window_px // 2
        top, left = np.clip(corner, 0, np.array(image.shape) - self.window_px)
        return image[top : top + self.window_px, left : left + self.window_px]


def augmented(window: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Turned by a multiple of 90 degrees, perhaps mirrored, other gain and offset, and half of the time filtered.

    The filter is the paper's: a self-guided filter of 3 or 5 pixels whose smoothing is the square of a random standard
    deviation between 0 and 1.
    """
    from cryopick.processing.denoise.filters import guided_filter

    turned = np.rot90(window, int(rng.integers(4)))
    if rng.random() < 0.5:
        turned = turned[:, ::-1]
    if rng.random() < 0.5:
        size, deviation = (3, 5)[rng.integers(2)], rng.uniform(0.05, 1)
        turned = guided_filter(turned, turned, window_px=size, epsilon=deviation**2, repeats_border=True)
    return np.asarray(turned * rng.uniform(0.8, 1.25) + rng.normal(0, 0.1), np.float32)


def split_images(images: Sequence[ExampleImage]) -> tuple[list[ExampleImage], list[ExampleImage]]:
    """Every fifth micrograph for validation, before anything is turned or shifted; a single one is cut in two."""
    if len(images) >= 2:
        validation = [image for index, image in enumerate(images) if index % 5 == 1]
        return [image for index, image in enumerate(images) if index % 5 != 1], validation
    only = images[0]
    cut = round(0.8 * only.pixels.shape[1])
    left, near = only.xy_px[:, 0] < cut, only.decoy_xy_px[:, 0] < cut
    return (
        [
            ExampleImage(
                only.pixels[:, :cut], only.xy_px[left], only.class_id[left], only.decoy_xy_px[near], only.diameter_px
            )
        ],
        [
            ExampleImage(
                only.pixels[:, cut:],
                only.xy_px[~left] - [cut, 0],
                only.class_id[~left],
                only.decoy_xy_px[~near] - [cut, 0],
                only.diameter_px,
            )
        ],
    )


def classification_loss(
    network: nn.Module, windows: Tensor, classes: Tensor, *, label_smoothing: float = LABEL_SMOOTHING
) -> Tensor:
    """Cross-entropy of (b, 1, s, s) windows with smoothed labels."""
    from torch.nn.functional import cross_entropy

    logits = network(windows).float().flatten(1)
    return cross_entropy(logits, classes, label_smoothing=label_smoothing)


class DrawsWindows(Protocol):
    """What windows are drawn from: `ExampleWindows`, or the published `BalancedSet`."""

    def draw(
        self, count: int, rng: np.random.Generator, *, is_augmented: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Windows (count, 1, s, s) and classes (count,)."""
        ...


def fit(
    network: nn.Module,
    windows: DrawsWindows,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    optimizer: Literal["adamw", "sgd"] = "adamw",
    weight_decay: float = 1e-2,
    label_smoothing: float = LABEL_SMOOTHING,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train in place; bfloat16 where the processor has matrix units for it.

    Parameters
    ----------
    optimizer : adamw, with one learning-rate cycle; sgd, with momentum 0.9 and the same learning rate throughout
    weight_decay : of the optimizer; for sgd that is the paper's L2 term

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    import torch

    from cryopick.inference.device import is_bfloat16_fast

    rng = np.random.default_rng(seed)
    channels_last(network.train())
    descent: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    if optimizer == "sgd":
        descent = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.ConstantLR(descent, factor=1.0, total_iters=1)
    else:
        descent = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(descent, learning_rate, total_steps=steps)
    device = str(next(network.parameters()).device)
    is_bfloat16 = is_bfloat16_fast(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            pixels, classes = windows.draw(batch_size, rng)
            batch = torch.from_numpy(pixels).to(device).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.split(":", maxsplit=1)[0], dtype=torch.bfloat16, enabled=is_bfloat16):
                labels = torch.from_numpy(classes).to(device)
                loss = classification_loss(network, batch, labels, label_smoothing=label_smoothing)
            if not bool(torch.isfinite(loss)):
                raise TrainingError(f"the loss is {float(loss)} after {step} steps; lower the learning rate")
            descent.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            descent.step()
            schedule.step()
            if on_step is not None:
                on_step(step + 1, float(loss))
    network.eval()


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a network says of windows that it was not trained on.

    Parameters
    ----------
    label : (n,) int, the class that clusters or given labels say
    probability : (n, classes) of the network, rows sum to 1
    """

    label: NDArray[np.int64]
    probability: NDArray[np.float64]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes) windows by label (row) and by the network's class (column)."""
        matrix = np.zeros((self.probability.shape[1],) * 2, np.int64)
        np.add.at(matrix, (self.label, self.probability.argmax(axis=1)), 1)
        return matrix

    @property
    def accuracy(self) -> float:
        """Share of the windows whose class is the label's."""
        return float(np.mean(self.probability.argmax(axis=1) == self.label)) if len(self.label) else 0.0

    @property
    def particle_accuracy(self) -> float:
        """Share of the windows told rightly from background (or bad), whatever the view."""
        is_view, says_view = (np.isin(kinds, list(VIEWS)) for kinds in (self.label, self.probability.argmax(axis=1)))
        return float(np.mean(is_view == says_view)) if len(self.label) else 0.0

    def precision_recall(self) -> dict[str, list[list[float]]]:
        """Curves by name, (recall, precision) from the highest cut to the lowest: each view that occurs, and all."""
        kinds = {name: np.array([view]) for view, name in VIEWS.items()} | {"any particle": np.array(list(VIEWS))}
        curves = {}
        for name, members in kinds.items():
            is_kind = np.isin(self.label, members)
            if is_kind.any():
                curves[name] = _curve(is_kind, self.probability[:, members].sum(axis=1))
        return {name: curve for name, curve in curves.items() if len(curves) > 2 or name != "any particle"}


def _curve(is_right: NDArray[np.bool_], score: NDArray[np.float64]) -> list[list[float]]:
    """(recall, precision) at up to 60 cuts."""
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(is_right[order])
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf))  # equal scores are cut together
    points = np.stack([found[ends] / found[-1], found[ends] / (ends + 1)], axis=1)
    kept = evenly_taken(range(len(points)), 60)
    return [[round(float(recall), 4), round(float(precision), 4)] for recall, precision in points[kept]]


def judge(network: nn.Module, windows: DrawsWindows, *, count: int = 400, seed: int = 1) -> HeldOut:
    """The network, in evaluation mode on the CPU, on random windows that are neither turned nor filtered."""
    import torch

    pixels, labels = windows.draw(count, np.random.default_rng(seed), is_augmented=False)
    with torch.inference_mode():
        parts = [network(torch.from_numpy(part)).flatten(1) for part in np.array_split(pixels, 8)]
    return HeldOut(labels, torch.cat(parts).double().softmax(1).numpy())


def training_record(held_out: HeldOut, counts: Mapping[str, int]) -> dict[str, Any]:
    """Plain JSON about the examples and how the held-out ones were classified."""
    matrix = held_out.confusion
    names = [CLASS_NAMES[kind] for kind in range(len(matrix))]
    return {
        "examples": dict(counts),
        "classes": names,
        "confusion": matrix.tolist(),
        "accuracy": held_out.accuracy,
        "precision_recall": held_out.precision_recall(),
    }
