"""The U-Net's training as published: whole micrographs and their masks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.data.datasets import Dataset, LabelledMicrograph
from cryopick.data.prepared_cache import Prepared
from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.model import View
from cryopick.pickers.cryosegnet.targets import PAPER_SMOOTH
from cryopick.pickers.cryosegnet.trainable import UNetTrainable
from cryopick.training.judging import device_of
from cryopick.training.losses import dice_loss
from cryopick.training.quarters import Example
from cryopick.training.sampling import MicrographSampler

if TYPE_CHECKING:
    from torch import Tensor, nn


_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PublishedPair:
    """A micrograph as the published network sees it, and what it should answer.

    Parameters
    ----------
    image, mask : (side, side), 0 to 255, rows as the network sees them
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]

    def example(self) -> Example:
        """Both in [0, 1]."""
        pictures = {"planes": self.image, "mask": self.mask}
        return {name: one[None].astype(np.float32) / np.float32(255) for name, one in pictures.items()}


class PublishedSampler(MicrographSampler[PublishedPair]):
    """Whole micrographs in turn, denoised and squeezed.

    Denoising one takes ten seconds, and is done once where the data set has a cache on disk.
    """

    def __init__(self, dataset: Dataset, *, view: View) -> None:
        super().__init__(dataset)
        self.view = view

    def at_working_scale(self, item: LabelledMicrograph) -> PublishedPair:
        return published_pair(item, view=self.view, prepared=self.prepared)

    def crop(self, position: int, rng: np.random.Generator) -> PublishedPair:  # noqa: ARG002  # nothing is random
        """The next micrograph, whole."""
        return self.whole(self.index_at(position))


@dataclass
class PublishedUNetTrainable(UNetTrainable):
    """The published U-Net and training: whole micrographs, completely labelled, denoised and squeezed; full discs.

    Parameters
    ----------
    rest_is_background : take what is not labelled for background though more particles may be there, as the authors do
        when they fine-tune with predicted labels
    """

    rest_is_background: bool = False
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
            if sparse and self.rest_is_background:
                _logger.warning(
                    "%s and %d more: not every particle may be labelled; as the authors do with predicted labels, the "
                    "rest is taught to be background",
                    sparse[0],
                    len(sparse) - 1,
                )
            elif sparse:
                raise SettingsError(
                    f"{sparse[0]}: not every particle is labelled, and the published training takes the rest for "
                    "background; use --preset small, or --labels complete where they are complete"
                )

    def sampler_of(self, dataset: Dataset) -> PublishedSampler:
        """Whole micrographs."""
        return PublishedSampler(dataset, view=self.task.seen)

    def labelled_example(self, crop: PublishedPair) -> Example:  # type: ignore[override]  # what its own sampler gives
        return crop.example()

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        planes = batch["planes"].contiguous(memory_format=torch.channels_last)
        return published_loss(network(planes).float(), batch["mask"], dice_share=self.task.dice_share)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """1 - Dice loss over the validation micrographs, as published, one by one."""
        import torch

        losses, device = [], device_of(network)
        pairs: Iterable[Any] = self.source.held_out
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


def published_pair(item: LabelledMicrograph, *, view: View, prepared: Prepared | None = None) -> PublishedPair:
    """The denoised picture and the mask of full discs, squeezed, 0 to 255, rows in the order that the network sees.

    The published masks are JPEG files; the ringing that this adds to their rims is left out.

    Parameters
    ----------
    prepared : where denoised pictures are kept
    """
    import cv2

    if item.labels is None or item.diameter_px is None:
        raise ValueError(f"{item.name}: has no labels with a diameter")
    view = view.of_file(item.source.path)

    def picture() -> NDArray[np.uint8]:
        squeezed, _ = view.show(item.read().pixels, diameter_px=None)
        return np.rint(255 * squeezed).astype(np.uint8)

    image = (prepared or Prepared()).of(item, {"of": "cryosegnet", "version": 1, **view.to_card()}, picture)
    full = np.zeros(item.shape_yx, np.uint8)
    radius = int(item.diameter_px / 2)
    for x, y in np.rint(item.labels.xy_px).astype(int).tolist():
        cv2.circle(full, (x, y), radius, 255, thickness=-1)
    mask = cv2.resize(full, (view.side_px, view.side_px), interpolation=cv2.INTER_LINEAR)
    if view.is_upside_down:
        image, mask = image[::-1], mask[::-1]
    return PublishedPair(np.asarray(image, np.uint8), np.asarray(mask, np.uint8))


def published_loss(logits: Tensor, mask: Tensor, *, dice_share: float = 0.5) -> dict[str, Tensor]:
    """Cross-entropy and Dice loss, the latter over the whole batch; with a share of one half as published.

    References
    ----------
    R. Gyawali et al., Brief. Bioinform. 25(4), bbae282, 2024, and its program (the article does not halve the sum).
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    bce, dice = binary_cross_entropy_with_logits(logits, mask), dice_loss(logits, mask, smooth=PAPER_SMOOTH)
    return {"loss": (1 - dice_share) * bce + dice_share * dice, "bce": bce, "dice": dice}
