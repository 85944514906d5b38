"""The U-Net's training as published: whole micrographs and their masks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset, LabelledMicrograph
from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.model import squeeze_published
from cryopick.pickers.cryosegnet.network import build_attention_unet
from cryopick.pickers.cryosegnet.targets import PAPER_SMOOTH
from cryopick.pickers.cryosegnet.tasks import UNetTask
from cryopick.training.losses import dice_loss
from cryopick.training.sampling import epoch_index

if TYPE_CHECKING:
    from torch import Tensor, nn

CACHED_MICROGRAPHS = 2048
"""Denoised micrographs and masks kept in memory, 2 MB each at 1024 pixels; denoising one takes ten seconds."""


@dataclass
class PublishedUNetTrainable:
    """The published U-Net and training: whole micrographs, denoised and squeezed; full discs; no augmentation.

    Parameters
    ----------
    train, validation : completely labelled, with known particle diameters
    """

    task: UNetTask
    train: Dataset
    validation: Dataset
    picker: str = field(default="cryosegnet", init=False)
    _cache: OrderedDict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = field(
        default_factory=OrderedDict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for part in (self.train, self.validation):
            unknown = [item.name for item in part if item.diameter_px is None]
            if unknown:
                raise SettingsError(f"{unknown[0]}: the particle diameter is unknown; give it (--diameter 180A)")
            sparse = [item.name for item in part if not item.is_complete]
            if sparse:
                raise SettingsError(
                    f"{sparse[0]}: not every particle is labelled, and the published training takes the rest for "
                    "background; use --preset small, or --labels complete where they are complete"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}  # worker processes denoise their own micrographs

    def architecture(self) -> dict[str, Any]:
        return self.task.architecture()

    def build_network(self) -> nn.Module:
        return build_attention_unet(self.architecture())

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:  # noqa: ARG002  # nothing is random
        import torch

        size = self.task.batch_size
        numbers = [epoch_index(index * size + i, len(self.train), seed=0) for i in range(size)]
        pairs = [self.example(self.train.items[number]) for number in numbers]
        planes, masks = (np.stack(arrays)[:, None] for arrays in zip(*pairs, strict=True))
        return {"planes": torch.from_numpy(planes), "mask": torch.from_numpy(masks)}

    def example(self, item: LabelledMicrograph) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(side, side) picture and mask, both in [0, 1]."""
        if item.name not in self._cache:
            self._cache[item.name] = published_example(item, side_px=self.task.side_px)
            while len(self._cache) > CACHED_MICROGRAPHS:
                self._cache.popitem(last=False)
        picture, mask = self._cache[item.name]
        return picture.astype(np.float32) / np.float32(255), mask.astype(np.float32) / np.float32(255)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        return published_loss(network(planes).float(), batch["mask"])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """1 - Dice loss over the validation micrographs, as published, one by one."""
        import torch

        losses = []
        device = next(network.parameters()).device
        for item in self.validation:
            picture, mask = (torch.from_numpy(array)[None, None].to(device) for array in self.example(item))
            losses.append(float(dice_loss(network(picture).float(), mask, smooth=PAPER_SMOOTH)))
        return {"score": 1 - float(np.mean(losses))}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:  # noqa: ARG002  # nothing is calibrated
        return {
            "preprocessing": self.task.seen.to_card(),
            "postprocessing": {"disc_share": 1.0},
            "data": {"train": self.train.card_entry(), "validation": self.validation.card_entry()},
        }


def published_example(item: LabelledMicrograph, *, side_px: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The denoised picture and the mask of full discs, squeezed, 0 to 255.

    The published masks are JPEG files; the ringing that this adds to their rims is left out.
    """
    import cv2

    if item.labels is None or item.diameter_px is None:
        raise ValueError(f"{item.name}: has no labels with a diameter")
    pixels = item.read().pixels
    squeezed, _ = squeeze_published(pixels, side_px=side_px)
    full = np.zeros(pixels.shape, np.uint8)
    radius = int(item.diameter_px / 2)
    for x, y in np.rint(item.labels.xy_px).astype(int).tolist():
        cv2.circle(full, (x, y), radius, 255, thickness=-1)
    mask = cv2.resize(full, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    return np.rint(255 * squeezed).astype(np.uint8), np.asarray(mask, np.uint8)


def published_loss(logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Half of cross-entropy plus Dice loss, the latter over the whole batch.

    References
    ----------
    R. Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024, and its program (the article does not halve the sum).
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    bce, dice = binary_cross_entropy_with_logits(logits, mask), dice_loss(logits, mask, smooth=PAPER_SMOOTH)
    return {"loss": (bce + dice) / 2, "bce": bce, "dice": dice}
