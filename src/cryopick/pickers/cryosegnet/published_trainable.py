"""The U-Net's training as published: whole micrographs and their masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset, LabelledMicrograph
from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.model import squeeze_published
from cryopick.pickers.cryosegnet.targets import PAPER_SMOOTH
from cryopick.pickers.cryosegnet.trainable import UNetTrainable
from cryopick.training.judging import device_of
from cryopick.training.losses import dice_loss
from cryopick.training.quarters import Example
from cryopick.training.sampling import MicrographSampler

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class PublishedPair:
    """A micrograph as the published network sees it, and what it should answer.

    Parameters
    ----------
    image, mask : (side, side), 0 to 255
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]

    def example(self) -> Example:
        """Both in [0, 1]."""
        pictures = {"planes": self.image, "mask": self.mask}
        return {name: one[None].astype(np.float32) / np.float32(255) for name, one in pictures.items()}


class PublishedSampler(MicrographSampler[PublishedPair]):
    """Whole micrographs in turn, denoised and squeezed."""

    cache_bytes = 2**31
    """2048 micrographs of 1024 pixels, with as many masks; denoising one takes ten seconds."""

    def __init__(self, dataset: Dataset, *, side_px: int) -> None:
        super().__init__(dataset)
        self.side_px = side_px

    def at_working_scale(self, item: LabelledMicrograph) -> PublishedPair:
        return published_pair(item, side_px=self.side_px)

    def crop(self, position: int, rng: np.random.Generator) -> PublishedPair:  # noqa: ARG002  # nothing is random
        """The next micrograph, whole."""
        return self.whole(self.index_at(position))


@dataclass
class PublishedUNetTrainable(UNetTrainable):
    """The published U-Net and training: whole micrographs, completely labelled, denoised and squeezed; full discs."""

    most_labelled = None

    def __post_init__(self) -> None:
        if self.train is None or self.validation is None:
            raise SettingsError(
                "the published U-Net learns from whole labelled micrographs: give --data, such as a folder of "
                "`cryopick simulate` or of CryoPPP; crops of simulation are for --preset small"
            )
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

    def sampler_of(self, dataset: Dataset) -> PublishedSampler:
        """Whole micrographs."""
        return PublishedSampler(dataset, side_px=self.task.side_px)

    def labelled_example(self, crop: PublishedPair) -> Example:  # type: ignore[override]  # what its own sampler gives
        return crop.example()

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        return published_loss(network(planes).float(), batch["mask"])

    def validate(self, network: nn.Module) -> dict[str, float]:
        """1 - Dice loss over the validation micrographs, as published, one by one."""
        import torch

        losses, device = [], device_of(network)
        pairs: list[Any] = self.source.held_out
        for pair in pairs:
            picture, mask = (torch.from_numpy(array)[None].to(device) for array in pair.example().values())
            losses.append(float(dice_loss(network(picture).float(), mask, smooth=PAPER_SMOOTH)))
        return {"score": 1 - float(np.mean(losses))}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:  # noqa: ARG002  # nothing is calibrated
        return {
            "preprocessing": self.task.seen.to_card(),
            "postprocessing": {"disc_share": 1.0},
            "data": self.card_data(),
        }


def published_pair(item: LabelledMicrograph, *, side_px: int) -> PublishedPair:
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
    return PublishedPair(np.rint(255 * squeezed).astype(np.uint8), np.asarray(mask, np.uint8))


def published_loss(logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Half of cross-entropy plus Dice loss, the latter over the whole batch.

    References
    ----------
    R. Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024, and its program (the article does not halve the sum).
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    bce, dice = binary_cross_entropy_with_logits(logits, mask), dice_loss(logits, mask, smooth=PAPER_SMOOTH)
    return {"loss": (bce + dice) / 2, "bce": bce, "dice": dice}
