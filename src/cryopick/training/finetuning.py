"""Fine-tuning without forgetting: new data and old data side by side, in training and in validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.training.augment import LabelledCrop
from cryopick.training.sampling import CropSampler
from cryopick.training.trainable import CountsEpochs, GroupsParameters, TellsData, Trainable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cryopick.data.datasets import Dataset
    from cryopick.io.weights import Checkpoint

PRIOR_MICROGRAPHS = 4
"""As many say how much of a micrograph particles cover."""
NEW_MARK = "is_new_data"
"""Entry of a batch: 1 for new data, 0 for old."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """Scores of the weights that fine-tuning starts from; `old` is NaN where nothing old is learnt from."""

    new: float
    old: float = math.nan


def estimate_prior(
    train: Dataset,
    *,
    seen: Callable[[NDArray[np.float32]], NDArray[np.floating]],
    labelled: Callable[[LabelledCrop], NDArray[np.floating]],
    largest: float,
) -> float:
    """Share of a map that particles cover, as the network before fine-tuning sees it, but not below the labels'.

    The map is a probability, so its mean is the expected share.

    Parameters
    ----------
    seen, labelled : the map of an image at working scale, and what it should be by the labels alone
    largest : more than this particles cannot cover unless they overlap
    """
    sampler = CropSampler(train, crop_px=64)
    crops = [sampler.whole(index) for index in range(min(len(sampler.items), PRIOR_MICROGRAPHS))]
    expected = np.mean([float(seen(crop.image).mean()) for crop in crops])
    least = np.mean([float(labelled(crop).mean()) for crop in crops])
    return float(np.clip(max(expected, least), 1e-4, largest))


def keep_statistics(network: nn.Module) -> None:
    """Let batch norms use what they know of the old data instead of what each batch holds.

    Batches of new and of old data differ; statistics of their mixture fit neither.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _holds(network: nn.Module, weights: Checkpoint) -> bool:
    """Whether a network's weights are those of a checkpoint, number by number."""
    own = network.state_dict()
    return own.keys() == weights.tensors.keys() and all(
        own[name].shape == tensor.shape and bool((own[name].cpu() == tensor.to(own[name].dtype)).all())
        for name, tensor in weights.tensors.items()
    )


@dataclass
class MixedTrainable:
    """Two trainables of one network: batches of new and old data in turn, so that two per step hold one of each.

    Parameters
    ----------
    new, old : same architecture; `old` is what the weights were trained on, usually simulation
    before : scores at the start
    start : the weights at the start; where they are kept, so is what their card says of their scores
    max_loss : how much of the old score may be lost; weights that lose more are never kept
    """

    new: Trainable
    old: Trainable
    before: Before
    start: Checkpoint | None = None
    max_loss: float = 0.02
    picker: str = field(init=False)

    def __post_init__(self) -> None:
        self.picker = self.new.picker

    def architecture(self) -> dict[str, Any]:
        return self.new.architecture()

    def build_network(self) -> nn.Module:
        return self.new.build_network()

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        if isinstance(self.new, GroupsParameters):
            return self.new.parameter_groups(network)
        return [{"params": [parameter for parameter in network.parameters() if parameter.requires_grad]}]

    def make_batch(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Even batches hold new data, odd ones old."""
        import torch

        is_new = index % 2 == 0
        batch = (self.new if is_new else self.old).make_batch(index // 2, rng)
        return {**batch, NEW_MARK: torch.tensor(int(is_new))}

    def steps_per_epoch(self) -> int:
        """Batches until the new data were seen once; every second one is of old data.

        Raises
        ------
        SettingsError
            If the trainable of the new data cannot count them.
        """
        if not isinstance(self.new, CountsEpochs):
            raise SettingsError(f"training: {self.picker!r} cannot tell the length of an epoch; give steps")
        return 2 * self.new.steps_per_epoch()

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        keep_statistics(network)
        inner = {name: value for name, value in batch.items() if name != NEW_MARK}
        is_new = bool(batch[NEW_MARK])
        losses = (self.new if is_new else self.old).loss(network, inner)
        # both kinds of batches name the same values, so that means over a step are of what they say, halved
        nothing = losses["loss"].detach() * 0
        halves = (losses["loss"].detach(), nothing) if is_new else (nothing, losses["loss"].detach())
        return {"loss": losses["loss"], "new": 2 * halves[0], "old": 2 * halves[1]}

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Both scores; `score` is that on new data, unless the old one fell too far: then it is below the start."""
        new, old = self.new.validate(network)["score"], self.old.validate(network)["score"]
        lost = self.before.old - old
        score = new if lost <= self.max_loss else min(new, self.before.new) - lost
        return {"score": score, "new": new, "old": old}

    def card_entries(self, network: nn.Module) -> dict[str, Any]:
        if self.start is not None and _holds(network, self.start):
            card = self.start.card
            return {
                "preprocessing": card.preprocessing,
                "postprocessing": card.postprocessing,
                "data": {"old": dict(card.data)},
            }
        new = self.new.card_entries(network)
        # calibrated on new data, or on the same crops: to calibrate on old data too would be for nothing
        if "postprocessing" in new and isinstance(self.old, TellsData):
            old = {"data": self.old.card_data()}
        else:
            old = self.old.card_entries(network)
        return {**old, **new, "data": {"new": new.get("data", {}), "old": old.get("data", {})}}
