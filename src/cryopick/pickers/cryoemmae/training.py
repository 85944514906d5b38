"""Training of Cryo-EMMAE's masked autoencoder: on unlabelled micrographs, or on simulated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError, TrainingError
from cryopick.geometry.units import Length
from cryopick.pickers.cryoemmae.latent import Preprocessing, prepare_image, preprocessing_named
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.processing.spread import evenly_taken
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import device_of
from cryopick.training.trainable import Family, Preset, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset, LabelledMicrograph
    from cryopick.io.weights import Checkpoint
    from cryopick.pickers.cryoemmae.latent import Encoder

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
TELLING_CROPS = 16
"""Of `simulated_references`: two simulated micrographs tell which cluster is the particle, where no reference does."""
RESIZED_AREA, RESIZED_RATIO = (0.04, 0.25), (3 / 4, 4 / 3)
"""Of `windows = resized`: share of a micrograph's area, and width over height, as the program's configuration 45."""
BOXES_PER_MICROGRAPH, BOX_SHARING = 256, 128


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
    stores_positions: Annotated[
        bool, "position codes are stored with the weights and begin as the authors', whose files can then be a start"
    ] = False
    preprocessing: Annotated[
        Literal["corrected", "article", "program", "published"],
        "corrected: working size, nothing shifted; article, program: 1024 x 1024 as either has it; published is the "
        "older name of program",
    ] = "corrected"
    windows: Annotated[
        Literal["random", "grid", "resized"],
        "random: any place, turned and mirrored; grid: fixed crops side by side, as published; resized: boxes of 4 to "
        "25 % of a micrograph's area shrunk to one crop, as the authors' model 45 of 20 sets was trained",
    ] = "random"
    windows_per_crop: Annotated[int, "random windows cut from each simulated crop or micrograph in a batch"] = 8
    batch_size: Annotated[int, "windows of 64 x 64 px per batch"] = 32
    simulated_micrographs: Annotated[int, "simulated micrographs to learn from with published pre-processing"] = 20
    clusters: Annotated[int, "clusters of the training set's vectors"] = 4
    probe_crops: Annotated[
        int, "simulated crops that say which vectors particles have; 0: no probe, for weights of the published kind"
    ] = 640
    reference: Annotated[
        Path | None, "picture that tells which of the training set's clusters is the particle; else simulation does"
    ] = None
    reference_mask: Annotated[Path | None, "mask of the reference: not 0 on particles"] = None
    reference_prepared: Annotated[
        bool, "the reference is a picture of 1024 x 1024 that is pre-processed already, as the authors' is"
    ] = True
    clustered_micrographs: Annotated[
        int, "micrographs whose vectors the training set's clusters are fitted on, where there is no probe; 0: all"
    ] = 0
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
        is_divided = self.windows != "random" or self.batch_size % max(1, self.windows_per_crop) == 0
        if self.windows_per_crop < 1 or not is_divided:
            raise SettingsError(
                f"[task] batch_size is {self.batch_size}, expected a multiple of windows_per_crop, "
                f"{self.windows_per_crop}"
            )
        for name in ("probe_crops", "calibration_crops"):
            if getattr(self, name) < 16 and not (name == "probe_crops" and self.probe_crops == 0):
                raise SettingsError(f"[task] {name} is {getattr(self, name)}, expected 16 or more")
        if self.preprocessing == "published":
            object.__setattr__(self, "preprocessing", "program")
        if self.probe_crops == 0 and self.preprocessing == "corrected":
            raise SettingsError(
                "[task] probe_crops is 0, and candidates of corrected pre-processing are worth nothing without a "
                "probe; give 16 or more, or preprocessing = article or program"
            )
        if self.windows == "resized" and self.preprocessing == "corrected":
            raise SettingsError("[task] windows resized are of pictures of 1024 x 1024; give preprocessing = program")
        if (self.reference is None) != (self.reference_mask is None):
            raise SettingsError("[task] reference and reference_mask belong together; give both or none")
        if self.reference is not None and self.probe_crops:
            raise SettingsError("[task] with a probe simulation tells the particle's cluster; give --reference to pick")
        if self.clustered_micrographs < 0:
            raise SettingsError(f"[task] clustered_micrographs is {self.clustered_micrographs}, expected 0 or more")

    @property
    def mode(self) -> Preprocessing:
        """The pre-processing by its name of today."""
        return preprocessing_named(self.preprocessing)


PUBLISHED: tuple[tuple[str, Preprocessing, Literal["grid", "resized"], int, float, float, str], ...] = (
    ("article", "article", "grid", 0, 400, 5, "the network and schedule of the article, on its pictures; 5.1 M"),
    ("program", "program", "grid", 0, 400, 5, "the same on the pictures of the released program: one set, as model 82"),
    (
        "program-20",
        "program",
        "resized",
        80,
        500,
        5,
        "model 45 of 20 sets: boxes of many sizes, 500 epochs, 80 clustered",
    ),
    ("finetune-article", "article", "grid", 0, 50, 5, "50 epochs from --start, then new clusters; article's pictures"),
    ("finetune-program", "program", "grid", 0, 50, 5, "50 epochs from --start, then new clusters, as in the program"),
)
"""Name, pre-processing, windows, micrographs that are clustered, epochs, epochs of warm-up, and what it is."""

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
    **{
        name: Preset(
            task=CryoEmmaeTask(
                width=192,
                depth=14,
                heads=1,
                decoder_width=128,
                decoder_depth=7,
                decoder_heads=8,
                stores_positions=True,
                preprocessing=mode,
                windows=windows,
                batch_size=128,
                probe_crops=0,
                clustered_micrographs=clustered,
            ),
            training=TrainSettings(
                epochs=epochs,
                learning_rate=5e-4,
                weight_decay=1e-5,
                warmup_epochs=warmup,
                final_lr_fraction=0.002,
                gradient_clip=0.0,
                ema_decay=0.0,
                validate_every_epochs=50,
                checkpoint_every_epochs=50,
            ),
            about=about,
        )
        for name, mode, windows, clustered, epochs, warmup, about in PUBLISHED
    },
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
    def images(self) -> list[NDArray[np.float32 | np.uint8]]:
        """Pre-processed micrographs, pictures of 1024 x 1024 as bytes; empty where crops are simulated as needed."""
        if self.train is not None:
            return self._given_images(self.train)
        if self.task.mode != "corrected":
            from cryopick.pickers.cryoemmae.reference import simulated_references

            count = 8 * self.task.simulated_micrographs
            found = simulated_references(preprocessing=self.task.mode, seed=REFERENCE_SEED, count=count, shared=0)
            return [_kept(one.prepared.image, self.task.mode) for one in found]
        return []

    def _given_images(self, dataset: Dataset) -> list[NDArray[np.float32 | np.uint8]]:
        diameters = self.diameters_of(dataset)
        images = []
        for item in dataset:
            diameter = diameters[item.name]
            settings = {"of": "cryoemmae picture", "version": 1, "mode": self.task.mode, "diameter": str(diameter)}
            image = dataset.prepared.of(item, settings, partial(self._image, item, diameter))
            if image.size:
                images.append(image)
        if not images:
            told = ", ".join(sorted({str(one) for one in diameters.values()}))
            raise TrainingError(
                f"{dataset.path}: none of {len(dataset)} micrographs is larger than a particle ({told}) and not "
                "blank; check --diameter"
            )
        return images

    def _image(self, item: LabelledMicrograph, diameter: Length) -> NDArray[np.float32 | np.uint8]:
        """Of one micrograph; empty where it shows nothing."""
        micrograph = item.read()
        diameter_px = diameter.middle_px(micrograph.pixel_size_angstrom)
        prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=self.task.mode)
        return np.zeros(0, np.float32) if prepared is None else _kept(prepared.image, self.task.mode)

    def diameters_of(self, dataset: Dataset) -> dict[str, Length]:
        """Of each micrograph by its name: as given, else as the files of its set say, else as `general` measures it.

        Sets that are learnt from together have a diameter each: particles of all are then as wide as the network
        expects.
        """
        given = dataset.diameter or self.task.diameter
        if given is not None:
            return {item.name: given for item in dataset}
        found = {
            item.name: Length(item.stated_diameter_px, item.stated_diameter_px, "px")
            for item in dataset
            if item.stated_diameter_px is not None
        }
        for group in dict.fromkeys(item.group for item in dataset if item.name not in found):
            unknown = [item for item in dataset if item.group == group and item.name not in found]
            measured = self._measured_diameter(f"{dataset.path}: {group}", unknown)
            found |= {item.name: measured for item in unknown}
        return found

    def _measured_diameter(self, where: str, items: Sequence[LabelledMicrograph]) -> Length:
        """By the `general` network, on a few of the micrographs."""
        from cryopick.heatmap.diameter import estimate_diameter
        from cryopick.heatmap.model import load_model as load_general

        few = evenly_taken(items, MEASURED_MICROGRAPHS)
        estimate = estimate_diameter(load_general(None), [item.read() for item in few])
        if estimate is None:
            raise TrainingError(f"{where}: nothing looks like a particle at any size; give --diameter")
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
        # one image after another: all of them as floats would take four times the memory
        sums = np.zeros(3)
        for image in images:
            values = _in_unit(image).astype(np.float64)
            sums += values.size, values.sum(), np.square(values).sum()
        mean = float(sums[1] / sums[0])
        std = float(np.sqrt(max(0.0, sums[2] / sums[0] - mean**2)))
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
                window = _in_unit(image[top : top + WINDOW_PX, left : left + WINDOW_PX])
                window = np.rot90(window, int(rng.integers(4)))
                windows.append(window[:, ::-1] if rng.integers(2) else window)
        return np.ascontiguousarray(np.stack(windows[:count]), np.float32)

    def grid(self, index: int) -> NDArray[np.float32]:
        """(batch_size, 64, 64) windows side by side, batch `index` of a sequence that shows each once an epoch."""
        places = self._places
        epoch_size = self.steps_per_epoch()
        epoch, inside = divmod(index, epoch_size)
        order = np.random.default_rng([7, epoch]).permutation(len(places))
        chosen = np.resize(order, epoch_size * self.task.batch_size)[
            inside * self.task.batch_size : (inside + 1) * self.task.batch_size
        ]
        windows = [self._at(*places[i]) for i in chosen]
        return np.stack(windows)

    def resized(self, index: int) -> NDArray[np.float32]:
        """(batch_size, 64, 64) boxes of `RESIZED_AREA` of a micrograph shrunk to a window, batch `index`.

        An epoch has 256 boxes of each micrograph, `BOX_SHARING` micrographs at a time sharing one, in random order.
        """
        per_epoch = self.steps_per_epoch()
        epoch, inside = divmod(index, per_epoch)
        rng = np.random.default_rng([11, epoch])
        count = len(self.images)
        place = rng.permutation(count)  # which micrographs share a box
        groups = -(-count // BOX_SHARING)
        boxes = [[_random_box(rng) for _ in range(groups)] for _ in range(BOXES_PER_MICROGRAPH)]
        order = rng.permutation(BOXES_PER_MICROGRAPH * count)
        first = inside * self.task.batch_size
        windows = []
        for number in np.resize(order, per_epoch * self.task.batch_size)[first : first + self.task.batch_size]:
            turn, one = divmod(int(number), count)
            box = boxes[turn][int(place[one]) // BOX_SHARING]
            windows.append(_shrunk(self.images[one], box))
        return np.stack(windows)

    def steps_per_epoch(self) -> int:
        """Batches that show each window of the grid once, or so many random ones.

        Raises
        ------
        SettingsError
            If crops are simulated as they are needed, which has no end.
        """
        if not self.images:
            raise SettingsError("training: simulated crops have no end, so there are no epochs; give steps")
        windows = BOXES_PER_MICROGRAPH * len(self.images) if self.task.windows == "resized" else len(self._places)
        return max(1, windows // self.task.batch_size)

    @cached_property
    def _places(self) -> list[tuple[int, int, int]]:
        return [
            (number, top, left)
            for number, image in enumerate(self.images)
            for top in range(0, image.shape[0] - WINDOW_PX + 1, WINDOW_PX)
            for left in range(0, image.shape[1] - WINDOW_PX + 1, WINDOW_PX)
        ]

    def _at(self, number: int, top: int, left: int) -> NDArray[np.float32]:
        return _in_unit(self.images[number][top : top + WINDOW_PX, left : left + WINDOW_PX])

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
            **({"stores_positions": True} if task.stores_positions else {}),
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
        if shipped.card.architecture != self.architecture() or self.task.mode != "corrected":
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
        if self.task.windows != "random" and self.images:
            windows = self.grid(index) if self.task.windows == "grid" else self.resized(index)
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

        On windows of the given micrographs, or on simulated crops of another seed. Weights of the published kind have
        no score (NaN) to choose them by: the last are kept, as published.
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
        drawn = 1 - error / variance
        return {"score": float("nan") if self.task.probe_crops == 0 else drawn, "drawn": drawn, "masked_mse": error}

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
        mode = self.task.mode
        if self.task.probe_crops == 0:
            return self._published_entries(encoder)
        windows = self.draw(np.random.default_rng(5), count=CLUSTERED_WINDOWS, first_crop=0)
        to_fit = simulated_references(
            preprocessing=mode, seed=REFERENCE_SEED, count=self.task.probe_crops, shared=BANK_CROPS
        )
        to_calibrate = simulated_references(
            preprocessing=mode, seed=CALIBRATION_SEED, count=self.task.calibration_crops, shared=HELD_OUT_CROPS
        )
        clusters = fit_clusters(encoder, windows, to_fit[: max(1, len(to_fit) // 4)], count=self.task.clusters)
        hollow = []
        if mode == "corrected":
            hollow = hollow_references(
                seed=REFERENCE_SEED, first=self.task.probe_crops, count=self.task.probe_crops // 3, shared=BANK_CROPS
            )
        probe, scores = fit_probe(encoder, clusters, to_fit=to_fit, hollow=hollow, to_calibrate=to_calibrate)
        return {
            "preprocessing": {"mode": mode, "mean": mean, "std": std, "particle_px": NOMINAL_PARTICLE_PX},
            "postprocessing": card_entry(clusters, probe),
            "data": {**self.card_data(), "calibration": "simulation", **scores},
        }

    def card_data(self) -> dict[str, Any]:
        """What the network learnt from."""
        if self.train is None:
            return {"kind": "simulation"}
        found = {"kind": "unlabelled micrographs", "count": len(self.images), "set": self.train.path.name}
        return {**found, "first_weights": self.task.first_weights}

    def _published_entries(self, encoder: Encoder) -> dict[str, Any]:
        """Clusters of all vectors of the training set, and the particle's among them; no probe."""
        from cryopick.pickers.cryoemmae.clusters import Clusters
        from cryopick.pickers.cryoemmae.picker import card_entry
        from cryopick.pickers.cryoemmae.published_chain import particle_of_files
        from cryopick.pickers.cryoemmae.reference import (
            fit_published_centres,
            particle_of_simulation,
            simulated_references,
        )

        task = self.task
        chosen = evenly_taken(self.images, task.clustered_micrographs or len(self.images))
        centres = fit_published_centres(encoder, (_in_unit(one) for one in chosen), count=task.clusters)
        if task.reference is not None and task.reference_mask is not None:
            told_by = "reference"
            known = [] if self.train is None else list(self.diameters_of(self.train).values())
            particle = particle_of_files(
                lambda picture: encoder.tokens(picture).vectors,
                centres,
                task.reference,
                task.reference_mask,
                diameter=task.diameter or (known[0] if known else None),
                preprocessing=None if task.reference_prepared else task.mode,
            )
        else:
            told_by = "simulation"
            truth = simulated_references(preprocessing=task.mode, seed=REFERENCE_SEED, count=TELLING_CROPS, shared=0)
            particle = particle_of_simulation(encoder, centres, truth)
        return {
            "preprocessing": {"mode": task.mode, "mean": encoder.mean, "std": encoder.std},
            "postprocessing": card_entry(Clusters(centres, particle), None),
            "data": {**self.card_data(), "particle_cluster": told_by, "clustered_micrographs": len(chosen)},
        }


def _kept(image: NDArray[np.float32], mode: Preprocessing) -> NDArray[np.float32 | np.uint8]:
    """As it is kept for training: pictures, which have 256 levels, as bytes."""
    return _at_least(image, WINDOW_PX) if mode == "corrected" else np.rint(255 * image).astype(np.uint8)


def _in_unit(image: NDArray[np.float32 | np.uint8]) -> NDArray[np.float32]:
    """Pixels in [0, 1]."""
    return (image / np.float32(255)).astype(np.float32) if image.dtype == np.uint8 else np.asarray(image, np.float32)


def _random_box(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """(top, left, height, width), shares of a micrograph: area and the logarithm of the aspect ratio are even."""
    while True:
        area, ratio = rng.uniform(*RESIZED_AREA), np.exp(rng.uniform(*np.log(RESIZED_RATIO)))
        height, width = float(np.sqrt(area / ratio)), float(np.sqrt(area * ratio))
        if max(height, width) <= 1:
            return float(rng.uniform(0, 1 - height)), float(rng.uniform(0, 1 - width)), height, width


def _shrunk(image: NDArray[np.float32 | np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """(64, 64) a box of a picture, each pixel the mean over what it covers."""
    import cv2

    rows, columns = image.shape
    top, left, height, width = (round(share * size) for share, size in zip(box, (rows, columns) * 2, strict=True))
    part = _in_unit(image[top : top + height, left : left + width])
    return np.asarray(cv2.resize(part, (WINDOW_PX, WINDOW_PX), interpolation=cv2.INTER_AREA), np.float32)


def _at_least(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The image, reflected to at least `side` pixels each way."""
    missing = [max(0, side - size) for size in image.shape]
    return np.pad(image, [(0, missing[0]), (0, missing[1])], mode="symmetric") if any(missing) else image


FAMILY = Family(
    presets=PRESETS,
    make_trainable=make_trainable,
    needs_labels=False,  # `cryopick train --data` takes any folder of micrographs; labels that lie there are not read
)
