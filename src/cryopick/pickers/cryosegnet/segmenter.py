"""A Segment Anything model as the picker uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import WeightsError
from cryopick.io.weights import card_path, files_of_weights, open_checkpoint
from cryopick.processing.probability import Calibration

if TYPE_CHECKING:
    from cryopick.pickers.cryosegnet.sam_network import SamSegmenter

EMBEDDED = "cryosegnet_sam"
"""Name of the shipped compact model, and the picker that its card names."""


@dataclass(frozen=True, eq=False)
class MaskScore:
    """How likely a mask is a particle: a logistic regression on `score_features`, then a calibration.

    Parameters
    ----------
    weights, offset : (k,) and one, of the regression
    calibration : of its result
    refused : what a maximum of the map is worth where Segment Anything gave no usable mask; None where not known
    """

    weights: NDArray[np.float64]
    offset: float
    calibration: Calibration
    refused: Calibration | None = None

    def raw(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) in 0 to 1, not calibrated."""
        return np.asarray(1 / (1 + np.exp(-np.clip(features @ self.weights + self.offset, -30, 30))))

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n,) probabilities."""
        return self.calibration(self.raw(features))

    def to_card(self) -> dict[str, Any]:
        """Plain JSON for a model card."""
        return {
            "weights": self.weights.tolist(),
            "offset": self.offset,
            "calibration": self.calibration.to_list(),
            "refused": None if self.refused is None else self.refused.to_list(),
        }

    @classmethod
    def from_card(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse of `to_card`."""
        return cls(
            np.asarray(entry["weights"], np.float64),
            float(entry["offset"]),
            Calibration.from_list(entry["calibration"]),
            None if entry.get("refused") is None else Calibration.from_list(entry["refused"]),
        )


@dataclass(frozen=True, eq=False)
class LoadedSam:
    """Segment Anything with what its masks are worth; `score` is None for models that were not calibrated here."""

    segmenter: SamSegmenter
    score: MaskScore | None


def files_of_sam(sam: str | None) -> list[Path]:
    """What `load_segmenter` reads; nothing that is known of a name to download."""
    if sam is None:
        return files_of_weights(EMBEDDED)
    path = Path(sam)
    return sorted(path.iterdir()) if path.is_dir() else [path, card_path(path)]


def load_segmenter(sam: str | None, *, device: str = "auto", precision: str = "auto") -> LoadedSam:
    """Segment Anything by path or name; None: the compact one shipped with the package.

    Raises
    ------
    WeightsError
        If there is no such model.
    """
    from cryopick.pickers.cryosegnet.sam_files import load_sam
    from cryopick.pickers.cryosegnet.sam_network import COMPACT_NAME, build_compact_sam

    path = None if sam is None else Path(sam)
    is_ours = path is None or (path.suffix == ".safetensors" and path.with_suffix(".json").is_file())
    is_ours = is_ours or (path is not None and (path / "weights.safetensors").is_file())
    if not is_ours:
        return LoadedSam(as_segmenter(load_sam(str(sam)), device=device, precision=precision, name=str(sam)), None)
    with open_checkpoint(EMBEDDED if path is None else path, picker=EMBEDDED) as checkpoint:
        holds = checkpoint.card.architecture.get("network")
        if holds != COMPACT_NAME:
            raise WeightsError(f"{checkpoint.path}: holds {holds!r}, expected {COMPACT_NAME!r}")
        model = checkpoint.build(build_compact_sam)
        entry = checkpoint.card.postprocessing.get("mask_score")
        score = None if entry is None else MaskScore.from_card(entry)
    return LoadedSam(as_segmenter(model, device=device, precision=precision, name="compact"), score)


def as_segmenter(model: Any, *, device: str = "auto", precision: str = "auto", name: str = "compact") -> SamSegmenter:
    """A `SamModel` on its device, ready to segment."""
    from cryopick.inference.device import chosen_bfloat16, chosen_device
    from cryopick.pickers.cryosegnet.sam_network import SamSegmenter

    place = chosen_device(device)
    return SamSegmenter(model.eval().to(place), device=place, is_bfloat16=chosen_bfloat16(place, precision), name=name)
