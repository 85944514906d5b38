"""The window classifier as it is run over micrographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.inference.channels_last import channels_last
from cryopick.inference.device import chosen_device, is_bfloat16_fast
from cryopick.pickers.deepcryopicker.objects import Found, Preprocessing, WorkingImage, working_image
from cryopick.processing.peaks import find_peaks
from cryopick.processing.scale import ScaleMap
from cryopick.types import Micrograph

NetworkName = Literal["compact", "paper"]
BOX_DIAMETERS = 1.3
"""Box side over particle diameter: 94 px for the paper's apoferritin of 72 px."""
COMPACT_WINDOW_PX, PAPER_WINDOW_PX = 37, 227
PAPER_STEP_BOXES = 0.1
LOGIT_FLOOR = -2.5
"""Candidates have at least this log odds of being a particle: a probability of 0.08."""
SMOOTHING_DIAMETERS = 0.1
"""Gaussian sigma of the log odds before their maxima are taken: the score is flat on top of a particle."""
PEAK_DIAMETERS = 0.25
CLEANING_THRESHOLD = 0.5
LARGEST_REGION = 1.5
"""Connected places above the threshold that cover more than a disc of so many diameters are ice or carbon."""


def architecture(
    network: NetworkName, classes: int, *, activation: str = "relu", initial: str = "he"
) -> dict[str, Any]:
    """What `build_classifier` builds."""
    if network == "paper":
        return {"network": "alexnet_picker", "classes": classes, "activation": activation, "initial": initial}
    return {"network": "compact_classifier", "classes": classes, "widths": [24, 48, 64]}


def paper_scale(boxes_px: Sequence[float]) -> float:
    """The factor, a multiple of 0.125, by which the paper scales micrographs for its 227-pixel window.

    Particles smaller than the window grow as far as the largest box stays below it; larger ones shrink until it does.

    Parameters
    ----------
    boxes_px : mean box sides of all views; the largest decides
    """
    box = max(boxes_px)
    return max(0.125, float(np.ceil(PAPER_WINDOW_PX / box / 0.125) - 1) * 0.125)


def paper_image(micrograph: Micrograph, *, diameter_px: float, preprocessing: Preprocessing) -> WorkingImage | None:
    """The micrograph as the published network sees it: scaled by `paper_scale`, with even sides.

    Zeros, the mean, are added below and to the right, so no coordinate moves.
    """
    from cryopick.processing.scale import resample

    base = working_image(micrograph, diameter_px=diameter_px, preprocessing=preprocessing)
    if base is None:
        return None
    target = paper_scale([BOX_DIAMETERS * diameter_px])
    pixels, rest = resample(base.pixels, factor=target / base.scale.factor)
    factor_yx = base.scale.factor_yx[0] * rest.factor_yx[0], base.scale.factor_yx[1] * rest.factor_yx[1]
    border = base.border.scaled(rest.factor_yx)
    more = [n % 2 for n in pixels.shape]
    if any(more):
        pixels = np.pad(pixels, ((0, more[0]), (0, more[1])))
        border = replace(border, bottom=border.bottom + more[0], right=border.right + more[1])
    return WorkingImage(pixels, ScaleMap(factor_yx), border)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A loaded network and what its windows have to look like."""

    network: Any
    device: str
    is_bfloat16: bool
    preprocessing: Preprocessing = "corrected"

    @property
    def is_paper(self) -> bool:
        """Whether this is the published network, which slides over a larger image."""
        return bool(self.network.window_px == PAPER_WINDOW_PX)

    def maps(
        self, pixels: NDArray[np.float32], *, diameter_px: float
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], float]:
        """The classifier at every place.

        Returns
        -------
        log_odds : (h, w) of being any view rather than background (or bad); place (0, 0) is pixel (0, 0)
        view : (h, w) the likeliest view
        step_px : pixels of the image per place
        """
        logits, step_px = self.logits(pixels, diameter_px=diameter_px)
        views, others = logits[1:4], np.concatenate([logits[:1], logits[4:]])
        log_odds = np.logaddexp.reduce(views, axis=0) - np.logaddexp.reduce(others, axis=0)
        return log_odds, (1 + views.argmax(axis=0)).astype(np.int32), step_px

    def logits(self, pixels: NDArray[np.float32], *, diameter_px: float) -> tuple[NDArray[np.float32], float]:
        """(classes, h, w) of the network at every place, and the pixels of the image per place."""
        import torch

        with torch.inference_mode():
            if self.is_paper:
                step = max(1, round(PAPER_STEP_BOXES * BOX_DIAMETERS * diameter_px))
                logits = slide(self.network, pixels, step_px=step, device=self.device)
            else:
                step = self.network.stride_px
                logits = self._dense(pixels)
        return logits.float().cpu().numpy(), float(step)

    def _dense(self, pixels: NDArray[np.float32]) -> Any:
        """Logits (classes, ceil(h / 2), ceil(w / 2)), the mean over the image turned and mirrored in all eight ways."""
        import torch

        height, width = pixels.shape
        # with odd sides, every second pixel from one end is every second pixel from the other
        odd = np.pad(pixels, ((0, 1 - height % 2), (0, 1 - width % 2)), mode="edge")
        dtype = torch.bfloat16 if self.is_bfloat16 else torch.float32
        image = torch.from_numpy(padded(odd, self.network.window_px))[None, None].to(self.device, dtype)
        total: Any = 0
        for turns in range(4):
            for flipped in ((), (-1,)):
                turned = torch.rot90(image, turns, (-2, -1)).flip(flipped)
                logits = self.network(turned.contiguous(memory_format=torch.channels_last))[0].float()
                total = total + torch.rot90(logits.flip(flipped), -turns, (-2, -1))
        step = self.network.stride_px
        return total[:, : -(-height // step), : -(-width // step)] / 8


def padded(pixels: NDArray[np.float32], window_px: int) -> NDArray[np.float32]:
    """The image mirrored beyond its borders, so that the first window is centred on the first pixel."""
    return np.pad(pixels, window_px // 2, mode="symmetric")


def slide(network: Any, pixels: NDArray[np.float32], *, step_px: int, device: str, batch: int = 64) -> Any:
    """Logits (classes, h, w) of windows cut at a constant step, the first centred on pixel (0, 0)."""
    import torch

    side = network.window_px
    image = torch.from_numpy(padded(pixels, side))
    rows, columns = (range(0, n, step_px) for n in pixels.shape)
    corners = [(row, column) for row in rows for column in columns]
    parts = []
    kind = device.split(":", maxsplit=1)[0]
    for start in range(0, len(corners), batch):
        windows = [image[row : row + side, column : column + side] for row, column in corners[start : start + batch]]
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=is_bfloat16_fast(device)):
            parts.append(network(torch.stack(windows)[:, None].to(device)).flatten(1).float())
    return torch.cat(parts).T.reshape(-1, len(rows), len(columns))


def find_in_maps(log_odds: NDArray[np.float32], view: NDArray[np.int32], *, diameter: float) -> Found:
    """Candidates of score maps: cleaned, smoothed, local maxima; centres in map pixels.

    Parameters
    ----------
    log_odds, view : (h, w) of `Classifier.maps`
    diameter : of a particle, map pixels
    """
    import cv2

    cleaned = clean_map(log_odds, diameter=diameter)
    sigma = max(SMOOTHING_DIAMETERS * diameter, 0.3)
    smooth = cv2.GaussianBlur(cleaned, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    xy, value = find_peaks(np.asarray(smooth, np.float32), min_score=LOGIT_FLOOR, radius_px=PEAK_DIAMETERS * diameter)
    column, row = np.rint(xy).astype(int).T if len(xy) else (np.zeros(0, int), np.zeros(0, int))
    score = (1 / (1 + np.exp(-value))).astype(np.float32)
    return Found(xy, score, np.full(len(xy), diameter / 2), view[row, column])


def clean_map(log_odds: NDArray[np.float32], *, diameter: float) -> NDArray[np.float32]:
    """The map without large connected places of high score; on them it becomes the lowest value of the map."""
    from cryopick.processing.regions import find_objects

    odds = CLEANING_THRESHOLD / (1 - CLEANING_THRESHOLD)
    regions = find_objects(log_odds > np.log(odds))
    is_large = regions.area_px > np.pi * (LARGEST_REGION * diameter / 2) ** 2
    return np.where(regions.keep(is_large), log_odds.min(), log_odds).astype(np.float32)


def weights_in(path: Path | str) -> Path:
    """The weights file meant by a path: the file, or the folder that training wrote."""
    path = Path(path)
    return path / "weights.safetensors" if path.is_dir() else path


def load_classifier(path: Path | str, *, device: str = "auto") -> Classifier:
    """The network of a file that `survey_in` or `cryopick train deepcryopicker` wrote."""
    import torch

    from cryopick.io.weights import load_checkpoint
    from cryopick.pickers.deepcryopicker.network import CompactClassifier, build_classifier, fold_for_inference

    checkpoint = load_checkpoint(weights_in(path), picker="deepcryopicker")
    device = chosen_device(device)
    network = checkpoint.build(build_classifier)
    is_bfloat16 = False
    if isinstance(network, CompactClassifier):
        is_bfloat16 = is_bfloat16_fast(device)
        network = fold_for_inference(network).to(torch.bfloat16 if is_bfloat16 else torch.float32)
        network = channels_last(network)
    mode: Preprocessing = "published" if checkpoint.card.preprocessing.get("mode") == "published" else "corrected"
    return Classifier(network.eval().to(device), device, is_bfloat16, mode)
