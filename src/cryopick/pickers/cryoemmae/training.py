"""Training of Cryo-EMMAE's masked autoencoder: on unlabelled micrographs, or on simulated ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError, TrainingError
from cryopick.geometry.units import Length
from cryopick.pickers.cryoemmae.latent import Preprocessing, prepare_image
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.processing.spread import evenly_taken
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import device_of
from cryopick.training.trainable import Family, Preset, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

WINDOW_PX, PATCH_PX = 64, 4
PATCHES = (WINDOW_PX // PATCH_PX) ** 2
STANDARD_CROPS = 64
"""Simulated crops whose pixels give the mean and standard deviation."""
MEASURED_MICROGRAPHS = 6
"""The diameter is measured on so many of the micrographs."""
VALIDATION_WINDOWS = 192
CLUSTERED_WINDOWS = 256
REFERENCE_SEED, CALIBRATION_SEED, VALIDATION_SEED = 1, 2001, 1001
BANK_CROPS, HELD_OUT_CROPS = 24_576, 512


@dataclass(frozen=True, kw_only=True)
class CryoEmmaeTask:
    """What the network is and what it sees."""

    width: Annotated[int, "length of a latent vector"] = 64
    depth: Annotated[int, "blocks of the encoder"] = 3
    heads: Annotated[int, "attention heads of the encoder"] = 2
    decoder_width: Annotated[int, "width of the decoder"] = 64
    decoder_depth: Annotated[int, "blocks of the decoder"] = 1
    decoder_heads: Annotated[int, "attention heads of the decoder"] = 2
    position_scale: Annotated[float, "factor of the encoder's position codes"] = 0.08
    mask_ratio: Annotated[float, "share of the patches that is hidden"] = 0.5
    preprocessing: Annotated[
        Preprocessing, "corrected: working size, nothing shifted; published: 1024 x 1024 as the program makes it"
    ] = "corrected"
    windows: Annotated[
        Literal["random", "grid"],
        "random: any place, turned and mirrored; grid: fixed crops side by side, as published",
    ] = "random"
    windows_per_crop: Annotated[int, "random windows cut from each simulated crop or micrograph in a batch"] = 8
    batch_size: Annotated[int, "windows of 64 x 64 px per batch"] = 32
    simulated_micrographs: Annotated[int, "simulated micrographs to learn from with published pre-processing"] = 20
    clusters: Annotated[int, "clusters of the training set's vectors"] = 4
    probe_crops: Annotated[int, "simulated crops that say which vectors particles have"] = 640
    calibration_crops: Annotated[int, "simulated crops that the probabilities are calibrated on; another seed"] = 120
    diameter: Annotated[Length | None, "particle diameter where --diameter is not given; else measured"] = None
    first_weights: Annotated[
        Literal["shipped", "random"], "random, or shipped: those adapt to the micrographs that are given"
    ] = "random"

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise SettingsError(f"[task] mask_ratio is {self.mask_ratio}, expected more than 0 and less than 1")
        if self.clusters < 2:
            raise SettingsError(f"[task] clusters is {self.clusters}, expected 2 or more")
        if self.windows_per_crop < 1 or self.batch_size % self.windows_per_crop:
            raise SettingsError(
                f"[task] batch_size is {self.batch_size}, expected a multiple of windows_per_crop, "
                f"{self.windows_per_crop}"
            )
        for name in ("probe_crops", "calibration_crops"):
            if getattr(self, name) < 16:
                raise SettingsError(f"[task] {name} is {getattr(self, name)}, expected 16 or more")


PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=CryoEmmaeTask(),
        training=TrainSettings(
            steps=800,
            learning_rate=2e-3,
            weight_decay=1e-5,
            warmup_steps=80,
            gradient_clip=1.0,
            ema_decay=0.99,
            validate_every=400,
            checkpoint_every=400,
        ),
        about="the shipped network, 0.2 M parameters: about five minutes on 2 CPU cores",
    ),
    "adapt": Preset(
        task=CryoEmmaeTask(first_weights="shipped"),
        training=TrainSettings(
            steps=200,
            learning_rate=2e-4,
            weight_decay=1e-5,
            warmup_steps=20,
            gradient_clip=1.0,
            ema_decay=0.99,
            validate_every=200,
            checkpoint_every=200,
        ),
        about="the shipped network adapted to unlabelled micrographs (--data): a few minutes on 2 CPU cores",
    ),
    "paper": Preset(
        task=CryoEmmaeTask(
            width=192,
            depth=14,
            heads=1,
            decoder_width=128,
            decoder_depth=7,
            decoder_heads=8,
            preprocessing="published",
            windows="grid",
            windows_per_crop=128,
            batch_size=128,
        ),
        training=TrainSettings(
            steps=144_000,  # 400 epochs of 180 micrographs of 256 crops
            learning_rate=5e-4,
            weight_decay=1e-5,
            warmup_steps=1800,
            final_lr_fraction=0.002,
            gradient_clip=0.0,
            ema_decay=0.0,
            validate_every=3600,
            checkpoint_every=3600,
        ),
        about="the published network, pictures and schedule, 5.1 M parameters; for a GPU",
    ),
}


def make_trainable(task: CryoEmmaeTask, *, train: Dataset | None, validation: Dataset | None) -> CryoEmmaeTrainable:
    """Learns from the micrographs of a data set, whose labels are not read, or from simulated ones."""
    del validation  # nothing is tuned on labels, so that every micrograph may be learnt from
    return CryoEmmaeTrainable(task, train)


@dataclass
class CryoEmmaeTrainable:
    """The autoencoder, its windows and its loss."""

    task: CryoEmmaeTask
    train: Dataset | None = None
    picker: str = field(default="cryoemmae", init=False)

    # ------------------------------------------------------------------------------------------------------- images

    @cached_property
    def images(self) -> list[NDArray[np.float32]]:
        """Pre-processed micrographs; empty where crops are simulated as they are needed."""
        if self.train is not None:
            return self._given_images(self.train)
        if self.task.preprocessing == "published":
            from cryopick.pickers.cryoemmae.reference import simulated_references

            count = 8 * self.task.simulated_micrographs
            found = simulated_references(preprocessing="published", seed=REFERENCE_SEED, count=count, shared=0)
            return [one.prepared.image for one in found]
        return []

    def _given_images(self, dataset: Dataset) -> list[NDArray[np.float32]]:
        diameter = self.diameter_of(dataset)
        images = []
        for item in dataset:
            micrograph = item.read()
            diameter_px = diameter.middle_px(micrograph.pixel_size_angstrom)
            prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=self.task.preprocessing)
            if prepared is not None:
                images.append(_at_least(prepared.image, WINDOW_PX))
        if not images:
            raise TrainingError(
                f"{dataset.path}: none of {len(dataset)} micrographs is larger than a particle ({diameter}) and not "
                "blank; check --diameter"
            )
        return images

    def diameter_of(self, dataset: Dataset) -> Length:
        """Given, or measured by the `general` network on a few of the micrographs."""
        given = dataset.diameter or self.task.diameter
        if given is not None:
            return given
        from cryopick.heatmap.diameter import estimate_diameter
        from cryopick.heatmap.model import load_model as load_general

        few = evenly_taken(dataset.items, MEASURED_MICROGRAPHS)
        estimate = estimate_diameter(load_general(None), [item.read() for item in few])
        if estimate is None:
            raise TrainingError(f"{dataset.path}: nothing looks like a particle at any size; give --diameter")
        return estimate.diameter

    @cached_property
    def crops(self) -> SimulatedCrops:
        return SimulatedCrops(seed=REFERENCE_SEED, count=BANK_CROPS)

    def _crop_image(self, source: SimulatedCrops, index: int) -> NDArray[np.float32]:
        crop = source.crop(index)
        prepared = prepare_image(crop.image, diameter_px=NOMINAL_PARTICLE_PX, preprocessing="corrected")
        return np.full(crop.image.shape, 0.5, np.float32) if prepared is None else prepared.image

    @cached_property
    def standard(self) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels; of those of the first weights, where there are such."""
        if self.first is not None:
            return self.first.card.preprocessing["mean"], self.first.card.preprocessing["std"]
        images = self.images or [self._crop_image(self.crops, index) for index in range(STANDARD_CROPS)]
        pixels = np.concatenate([image.ravel() for image in images])
        mean, std = float(np.mean(pixels, dtype=np.float64)), float(np.std(pixels, dtype=np.float64))
        if not std > 0:
            raise TrainingError("the training images are blank")
        return mean, std

    # ------------------------------------------------------------------------------------------------------ windows

    def draw(
        self,
        rng: np.random.Generator,
        *,
        count: int,
        first_crop: int,
        source: SimulatedCrops | None = None,
        is_mixed: bool = False,
    ) -> NDArray[np.float32]:
        """(count, 64, 64) windows in [0, 1], `windows_per_crop` of each image; turned and mirrored at random.

        Parameters
        ----------
        first_crop, source : of simulated crops
        is_mixed : every other image is a simulated crop although micrographs are given
        """
        per_image = self.task.windows_per_crop
        windows = []
        for number in range(-(-count // per_image)):
            if self.images and not (is_mixed and number % 2):
                image = self.images[int(rng.integers(len(self.images)))]
            else:
                image = self._crop_image(source or self.crops, first_crop + number)
            for _ in range(per_image):
                top, left = (int(rng.integers(side - WINDOW_PX + 1)) for side in image.shape)
                window = np.rot90(image[top : top + WINDOW_PX, left : left + WINDOW_PX], int(rng.integers(4)))
                windows.append(window[:, ::-1] if rng.integers(2) else window)
        return np.ascontiguousarray(np.stack(windows[:count]), np.float32)

    def grid(self, index: int) -> NDArray[np.float32]:
        """(batch_size, 64, 64) windows side by side, batch `index` of a sequence that shows each once an epoch."""
        places = self._places
        epoch_size = max(1, len(places) // self.task.batch_size)
        epoch, inside = divmod(index, epoch_size)
        order = np.random.default_rng([7, epoch]).permutation(len(places))
        chosen = np.resize(order, epoch_size * self.task.batch_size)[
            inside * self.task.batch_size : (inside + 1) * self.task.batch_size
        ]
        windows = [self._at(*places[i]) for i in chosen]
        return np.stack(windows)

    @cached_property
    def _places(self) -> list[tuple[int, int, int]]:
        return [
            (number, top, left)
            for number, image in enumerate(self.images)
            for top in range(0, image.shape[0] - WINDOW_PX + 1, WINDOW_PX)
            for left in range(0, image.shape[1] - WINDOW_PX + 1, WINDOW_PX)
        ]

    def _at(self, number: int, top: int, left: int) -> NDArray[np.float32]:
        return self.images[number][top : top + WINDOW_PX, left : left + WINDOW_PX]

    # ------------------------------------------------------------------------------------------- what the loop asks

    def architecture(self) -> dict[str, Any]:
        task = self.task
        return {
            "network": "masked_autoencoder",
            "image_px": WINDOW_PX,
            "patch_px": PATCH_PX,
            "width": task.width,
            "depth": task.depth,
            "heads": task.heads,
            "decoder_width": task.decoder_width,
            "decoder_depth": task.decoder_depth,
            "decoder_heads": task.decoder_heads,
            "position_scale": task.position_scale,
        }

    @cached_property
    def first(self) -> Checkpoint | None:
        """The shipped weights, where they are to adapt to micrographs.

        Raises
        ------
        SettingsError
            If there are no micrographs to adapt to, or the task is not that of the shipped network.
        """
        from cryopick.io.weights import find_weights, load_checkpoint

        if self.task.first_weights != "shipped":
            return None
        if self.train is None:
            raise SettingsError(
                "the shipped weights learnt from simulation already; give the micrographs that they are to adapt to: "
                "--data micrographs/"
            )
        shipped = load_checkpoint(find_weights(self.picker), picker=self.picker)
        if shipped.card.architecture != self.architecture() or self.task.preprocessing != "corrected":
            raise SettingsError(
                "the shipped weights are those of the preset small; give first_weights = random for another "
                "architecture or pre-processing"
            )
        return shipped

    @property
    def is_adapting(self) -> bool:
        """Whether weights that know simulation learn from micrographs.

        Half of what they learn from is then simulation still: what their vectors mean is read off simulated particles,
        which a network that forgot them would place elsewhere.
        """
        return self.first is not None

    def build_network(self) -> nn.Module:
        from cryopick.pickers.cryoemmae.network import build_masked_autoencoder

        network = build_masked_autoencoder(self.architecture())
        if self.first is not None:
            self.first.load_into(network)
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Biases, norms and tokens are not decayed."""
        flat = [p for p in network.parameters() if max(p.shape) == p.numel()]
        matrices = [p for p in network.parameters() if max(p.shape) != p.numel()]
        return [{"params": matrices}, {"params": flat, "weight_decay": 0.0}]

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Standardised windows, and for each a random order of its patches, of which the first part is shown."""
        import torch

        size = self.task.batch_size
        if self.task.windows == "grid" and self.images:
            windows = self.grid(index)
        else:
            first_crop = index * (size // self.task.windows_per_crop)
            windows = self.draw(rng, count=size, first_crop=first_crop, is_mixed=self.is_adapting)
        mean, std = self.standard
        order = rng.random((size, PATCHES), dtype=np.float32).argsort(axis=1)
        standard = (windows - np.float32(mean)) / np.float32(std)
        return {"images": torch.from_numpy(standard), "order": torch.from_numpy(order)}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the hidden patches, in variances of the training pixels."""
        from cryopick.pickers.cryoemmae.network import hidden_error

        images, order, visible = batch["images"], batch["order"], self._visible
        drawn = network(images, order=order, visible=visible)  # through `forward`, which the loop's wrappers know
        return {"loss": hidden_error(drawn, images, order=order, visible=visible, patch_px=PATCH_PX)}

    @property
    def _visible(self) -> int:
        return PATCHES - int(self.task.mask_ratio * PATCHES)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Share of the variance of hidden patches that the decoder draws.

        On windows of the given micrographs, or on simulated crops of another seed.
        """
        import torch

        from cryopick.pickers.cryoemmae.network import to_patches

        rng = np.random.default_rng(12)
        source = None if self.images else SimulatedCrops(seed=VALIDATION_SEED, count=HELD_OUT_CROPS)
        mean, std = self.standard
        windows = (self.draw(rng, count=VALIDATION_WINDOWS, first_crop=0, source=source) - mean) / std
        images = torch.from_numpy(windows.astype(np.float32)).to(next(network.parameters()).device)
        order = torch.from_numpy(rng.random((VALIDATION_WINDOWS, PATCHES)).argsort(axis=1)).to(images.device)
        error = float(self.loss(network, {"images": images, "order": order})["loss"])
        hidden = order[:, self._visible :, None].expand(-1, -1, PATCH_PX**2)
        variance = float(to_patches(images, patch_px=PATCH_PX).gather(1, hidden).var())
        return {"score": 1 - error / variance, "masked_mse": error}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        """Clusters, the particle's among them, and the calibrated score, from simulation encoded by this network."""
        from cryopick.pickers.cryoemmae.latent import Encoder
        from cryopick.pickers.cryoemmae.network import MaskedAutoencoder
        from cryopick.pickers.cryoemmae.picker import card_entry
        from cryopick.pickers.cryoemmae.reference import (
            fit_clusters,
            fit_probe,
            hollow_references,
            simulated_references,
        )

        mean, std = self.standard
        if not isinstance(network, MaskedAutoencoder):
            raise TypeError(f"expected a MaskedAutoencoder, got {type(network)}")
        encoder = Encoder.loaded(network, mean=mean, std=std, device=device_of(network), precision="float32")
        mode = self.task.preprocessing
        windows = self.draw(np.random.default_rng(5), count=CLUSTERED_WINDOWS, first_crop=0)
        to_fit = simulated_references(
            preprocessing=mode, seed=REFERENCE_SEED, count=self.task.probe_crops, shared=BANK_CROPS
        )
        to_calibrate = simulated_references(
            preprocessing=mode, seed=CALIBRATION_SEED, count=self.task.calibration_crops, shared=HELD_OUT_CROPS
        )
        clusters = fit_clusters(encoder, windows, to_fit[: len(to_fit) // 4], count=self.task.clusters)
        hollow = []
        if mode == "corrected":
            hollow = hollow_references(
                seed=REFERENCE_SEED, first=self.task.probe_crops, count=self.task.probe_crops // 3, shared=BANK_CROPS
            )
        probe, scores = fit_probe(encoder, clusters, to_fit=to_fit, hollow=hollow, to_calibrate=to_calibrate)
        data: dict[str, Any] = {"kind": "simulation"}
        if self.train is not None:
            data = {"kind": "unlabelled micrographs", "count": len(self.images), "set": self.train.path.name}
            data["first_weights"] = self.task.first_weights
        return {
            "preprocessing": {"mode": mode, "mean": mean, "std": std, "particle_px": NOMINAL_PARTICLE_PX},
            "postprocessing": card_entry(clusters, probe),
            "data": {**data, "calibration": "simulation", **scores},
        }


def _at_least(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The image, reflected to at least `side` pixels each way."""
    missing = [max(0, side - size) for size in image.shape]
    return np.pad(image, [(0, missing[0]), (0, missing[1])], mode="symmetric") if any(missing) else image


FAMILY = Family(
    presets=PRESETS,
    make_trainable=make_trainable,
    needs_labels=False,  # `cryopick train --data` takes any folder of micrographs; labels that lie there are not read
)
