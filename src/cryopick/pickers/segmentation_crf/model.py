"""From a micrograph at working scale to class probabilities: the network on mirror images, then one of the CRFs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import WeightsError
from cryopick.inference.dense import DenseNetwork
from cryopick.inference.device import chosen_device
from cryopick.inference.looks import seen_turned
from cryopick.io.weights import open_checkpoint
from cryopick.pickers.segmentation_crf.dense_crf import DenseCrf, mean_field
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import gaussian_blur, network_planes

if TYPE_CHECKING:
    from torch import nn

    from cryopick.pickers.segmentation_crf.network import LargeSegmentation, SmallSegmentation

BACKGROUND, RIM, CORE, HOLLOW, JUNK = range(5)
"""Planes of the maps, `networks.segmentation.CLASSES`."""
CLASS_COUNT = 5
CORE_RADIUS = 0.25
"""Core and hollow together are the disc of this many diameters around a particle's centre."""
CELLS_PER_DIAMETER = 10.0
"""Map cells across a particle, whatever the network: 2 working pixels of 20, or 8 of 80."""
GUIDE_SIGMA = 0.08
"""Gaussian, in diameters, that takes the pixel noise out of the image by which CRFs tell places apart."""
CRFS = ("none", "dense", "conv", "learned")
DENSE = DenseCrf(compatible=((RIM, CORE), (BACKGROUND, HOLLOW), (CORE, HOLLOW)))
"""Strength and reach of the dense CRF, chosen on simulated crops."""
TILE_PX, HALO_PX = 1024, 256
MIRRORS = ((1, 1), (-1, -1), (1, -1), (-1, 1))
"""Which axes, rows and columns, each view of a micrograph turns round (-1); the micrograph itself first."""
VIEW_COUNTS = (1, 2, 4)


def particle_map(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) probability of any part of a silhouette, from the (5, h, w) classes."""
    return np.asarray(probability[RIM] + probability[CORE])


def core_map(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) probability of lying within `CORE_RADIUS` diameters of a centre."""
    return np.asarray(probability[CORE] + probability[HOLLOW])


def working_particle_px(stride_px: int) -> float:
    """Diameter that particles are resampled to for a network whose maps are `stride_px` coarser than its input."""
    return CELLS_PER_DIAMETER * stride_px


def intensity_guide(detail: NDArray[np.float32], *, stride_px: int) -> NDArray[np.float32]:
    """(ceil(h / stride), ceil(w / stride)) low-passed micrograph in units of its robust standard deviation.

    Parameters
    ----------
    detail : (h, w), the first of `network_planes`
    """
    import cv2

    from cryopick.processing.normalize import robust_spread

    height, width = detail.shape
    smooth = gaussian_blur(detail, sigma_px=GUIDE_SIGMA * working_particle_px(stride_px))
    padded = np.pad(smooth, ((0, -height % stride_px), (0, -width % stride_px)), mode="edge")
    size = padded.shape[1] // stride_px, padded.shape[0] // stride_px
    small = np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.float32)
    middle, spread = robust_spread(small)
    return (small - np.float32(middle)) / np.float32(spread) if spread > 1e-6 else np.zeros_like(small)


@dataclass(frozen=True, eq=False)
class SegmentationModel:
    """A loaded network with its CRFs and calibrations.

    Parameters
    ----------
    dense : gives logits of the classes, then the features of the learned CRF
    input_planes : of `network_planes` that it sees
    crfs : `conv` and `learned`, on the network's device in float32
    calibrations : by CRF
    """

    dense: DenseNetwork
    input_planes: int
    crfs: Any
    calibrations: Mapping[str, Calibration]

    @property
    def stride_px(self) -> int:
        """Working pixels per cell of the maps."""
        return self.dense.stride_px

    @property
    def particle_px(self) -> float:
        """Working diameter of particles."""
        return working_particle_px(self.stride_px)

    def before_and_after(
        self,
        working: NDArray[np.float32],
        *,
        crf: str = "none",
        dense_crf: DenseCrf = DENSE,
        views: int = VIEW_COUNTS[-1],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same before the random field and after it."""
        planes = network_planes(working, particle_px=self.particle_px, count=self.input_planes)
        maps = self.maps(planes, views=views)
        before = self.refined(maps, planes[0], crf="none")
        return before, before if crf == "none" else self.refined(maps, planes[0], crf=crf, dense_crf=dense_crf)

    def maps(self, planes: NDArray[np.float32], *, views: int = VIEW_COUNTS[-1]) -> NDArray[np.float32]:
        """Logits and features at the stride, the mean of what the network says of mirror images, turned back.

        Parameters
        ----------
        planes : (input_planes, h, w), see `network_planes`
        views : mirror images, one of `VIEW_COUNTS`
        """
        answers = [seen_turned(self.dense, planes, step_yx) for step_yx in MIRRORS[:views]]
        return np.asarray(np.mean(answers, axis=0))

    def refined(
        self, maps: NDArray[np.float32], detail: NDArray[np.float32], *, crf: str, dense_crf: DenseCrf = DENSE
    ) -> NDArray[np.float32]:
        """Class probabilities from what the network gave and the first of the planes that it saw."""
        from scipy.special import softmax

        logits, embedding = maps[:CLASS_COUNT], maps[CLASS_COUNT:]
        if crf == "none":
            return np.asarray(softmax(logits, axis=0))
        guide = intensity_guide(detail, stride_px=self.stride_px)
        if crf == "dense":
            log_probability = np.log(np.maximum(softmax(logits, axis=0), 1e-5))
            return mean_field(log_probability, guide, dense_crf, diameter_px=CELLS_PER_DIAMETER)
        features = guide[None] if crf == "conv" else embedding
        return np.asarray(softmax(run_crf(self.crfs[crf], logits, features, device=self.dense.device), axis=0))


def run_crf(
    crf: nn.Module, logits: NDArray[np.float32], features: NDArray[np.float32], *, device: str
) -> NDArray[np.float32]:
    """(labels, h, w) logits and (features, h, w) guide to refined logits."""
    import torch

    with torch.inference_mode():
        refined = crf(torch.from_numpy(logits)[None].to(device), torch.from_numpy(features)[None].to(device))
    return np.asarray(refined[0].float().cpu().numpy(), np.float32)


def segmentation_model(
    network: SmallSegmentation | LargeSegmentation,
    calibrations: Mapping[str, Calibration],
    *,
    head: str | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> SegmentationModel:
    """A network, which is copied, as the picker runs it; `head` is the one that answers."""
    from copy import deepcopy

    from cryopick.pickers.segmentation_crf.network import CLASSES, EMBEDDING, folded

    copy = folded(network)
    if head is not None:
        copy.head = head  # type: ignore[assignment]
    crfs = deepcopy(network.crf).eval().float().to(chosen_device(device))
    dense = DenseNetwork.loaded(
        copy,
        device=device,
        precision=precision,
        channels=len(CLASSES) + EMBEDDING,
        stride_px=network.stride_px,
        multiple_px=network.multiple_px,
        tile_px=TILE_PX,
        halo_px=HALO_PX,
    )
    return SegmentationModel(dense, network.in_channels, crfs, calibrations)


def load_segmentation(
    weights: Path | str, *, backbone: str, head: str, device: str = "auto", precision: str = "auto"
) -> SegmentationModel:
    """The network of a checkpoint, folded and on its device.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another backbone.
    """
    from cryopick.pickers.segmentation_crf.network import build_segmentation

    with open_checkpoint(weights, picker="segmentation-crf") as checkpoint:
        architecture = checkpoint.card.architecture
        if "backbone" not in architecture:
            raise WeightsError(
                f"{checkpoint.path}: weights of torchvision's network, which the published pipeline runs; give --as "
                "article or --as program with them"
            )
        if architecture.get("backbone") != backbone:
            raise WeightsError(
                f"{checkpoint.path}: weights of backbone {architecture.get('backbone')!r}, expected {backbone!r}; "
                "give --backbone and --weights that belong together"
            )
        network = checkpoint.build(build_segmentation)
        stored: Mapping[str, Any] = checkpoint.card.postprocessing["calibrations"][head]
        calibrations = {crf: Calibration.from_list(knots) for crf, knots in stored.items()}
        return segmentation_model(network, calibrations, head=head, device=device, precision=precision)
