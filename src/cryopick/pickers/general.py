"""`general`: a pretrained scale-normalised network; needs no labels and no settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.io.checkpoint import loads_weights
from cryopick.pickers.dense import PRECISIONS, DenseNetwork, chosen_device, sigmoid
from cryopick.pickers.diameter import contrast_doubt, empty_run, filled_share, find_sizes, look_at_pieces, looks_empty
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.looks import LOOKS, Look, mean_of_looks, seen_turned
from cryopick.pickers.registry import register_picker
from cryopick.processing.carbon import with_whole_carbon
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import network_planes
from cryopick.types import JUNK_MAP, Micrograph, Picks

if TYPE_CHECKING:
    from torch import nn

    from cryopick.networks.heatmap_unet import HeatmapUNet

NOMINAL_PARTICLE_PX = 20.0
"""Diameter that particles are resampled to before the network sees them."""
STRIDE_PX = 2
"""Working pixels per pixel of the network's maps."""
TARGET_RADIUS = 0.2
"""The centre map is the probability that a particle centre lies within this many diameters."""
TILE_PX = 1536
"""Largest side that the network sees at once: fewer and larger tiles read less twice, and hold more memory."""
INT8 = "int8"
GENERAL_PRECISIONS = (*PRECISIONS, INT8)
CANDIDATE_FLOOR = 0.02
"""Map values below it are never candidates; far below any useful threshold."""


# ---------------------------------------------------------------------------------------------- truth to targets


def centre_targets(
    xy_px: NDArray[np.float64], diameter_px: NDArray[np.float64], *, shape_yx: tuple[int, int], stride_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the network should answer for particles at `xy_px` in a working image.

    Parameters
    ----------
    xy_px, diameter_px : (n, 2) and (n,), working pixels
    shape_yx : of the output grid
    stride_px : working pixels per output pixel

    Returns
    -------
    centre : (h, w), 1 within `TARGET_RADIUS` diameters of a centre, else 0
    geometry : (3, h, w), x and y offset to that centre in output pixels and log(diameter / nominal)
    """
    height, width = shape_yx
    centre = np.zeros(shape_yx, np.float32)
    geometry = np.zeros((3, height, width), np.float32)
    grid_xy = (np.asarray(xy_px, np.float64).reshape(-1, 2) + 0.5) / stride_px - 0.5
    diameter = np.asarray(diameter_px, np.float64)
    radius = np.maximum(TARGET_RADIUS * diameter / stride_px, 1.0)
    reach = int(np.ceil(radius.max(initial=0)))
    around = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    cell_xy = np.rint(grid_xy).astype(np.intp)[:, None] + around
    to_centre = (grid_xy[:, None] - cell_xy).astype(np.float32)  # (n, cells, 2)
    squared = np.square(to_centre).sum(axis=2)
    is_near = squared <= np.square(radius)[:, None]
    is_near &= ((cell_xy >= 0) & (cell_xy < (width, height))).all(axis=2)
    particle, cell = np.nonzero(is_near)
    order = np.lexsort((-particle, -squared[particle, cell]))  # the nearest last, so that its answer stays
    particle, cell = particle[order], cell[order]
    column, row = cell_xy[particle, cell].T
    centre[row, column] = 1.0
    geometry[:2, row, column] = to_centre[particle, cell].T
    geometry[2, row, column] = np.log(diameter / NOMINAL_PARTICLE_PX)[particle]
    return centre, geometry


# ------------------------------------------------------------------------------------------------ output to picks


def centres_from_maps(maps: NDArray[np.float32], *, stride_px: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Candidates: local maxima of the centre map, moved by the predicted offsets.

    Parameters
    ----------
    maps : (5, h, w), the planes of `OUTPUTS`, `centre` and `junk` already probabilities

    Returns
    -------
    xy_px : (n, 2) working pixels
    index_yx : (n, 2) the output pixel of each candidate
    """
    import cv2

    probability = np.pad(maps[0], 1, mode="edge")
    # the discs of the target are flat: a light blur makes their middle the maximum
    smooth = cv2.GaussianBlur(probability, (0, 0), 0.08 * NOMINAL_PARTICLE_PX / stride_px)
    reach = max(1, round(0.15 * NOMINAL_PARTICLE_PX / stride_px))
    highest = cv2.dilate(smooth, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    is_peak = (smooth >= highest)[1:-1, 1:-1] & (smooth[1:-1, 1:-1] > CANDIDATE_FLOOR)
    index_yx = np.argwhere(is_peak)
    row, column = index_yx.T
    offset_xy = np.clip(maps[1:3, row, column].T, -3, 3)
    xy_px = (index_yx[:, ::-1] + offset_xy + 0.5) * stride_px - 0.5
    return xy_px.astype(np.float64), index_yx


# ------------------------------------------------------------------------------------------------------ inference


@dataclass(frozen=True, eq=False)
class HeatmapModel:
    """A loaded network with its calibration, ready to map working images.

    Parameters
    ----------
    dense : a `HeatmapUNet`, batch norms folded
    calibration : of the centre map's values at candidates
    input_planes : of `network_planes` that it sees
    """

    dense: DenseNetwork
    calibration: Calibration
    input_planes: int = 2

    def planes(self, working: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network sees of a working image."""
        return network_planes(working, particle_px=NOMINAL_PARTICLE_PX, count=self.input_planes)

    def __call__(self, working: NDArray[np.float32]) -> NDArray[np.float32]:
        """A working image to (5, ceil(h / 2), ceil(w / 2)) maps; `centre` and `junk` are probabilities."""
        return _as_probabilities(self.dense(self.planes(working)))

    def looked(self, working: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
        """(6, h', w') maps, `centre` and `junk` as logits, and last the background counted from the brightest.

        Offsets and sizes are in the units of a look of factor 1.
        """
        planes = network_planes(working, particle_px=NOMINAL_PARTICLE_PX, count=3)
        maps = seen_turned(self.dense, planes[: self.input_planes], look.step_yx)
        maps[1] *= look.step_yx[1] * look.factor
        maps[2] *= look.step_yx[0] * look.factor
        maps[3] += np.float32(np.log(look.factor))
        return np.concatenate([maps, planes[2:, ::STRIDE_PX, ::STRIDE_PX]])


def _as_probabilities(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    maps[0], maps[4] = sigmoid(maps[0]), sigmoid(maps[4])
    return maps


@loads_weights("general", most=4)
def load_model(weights: Path | None, *, device: str = "auto", precision: str = "auto") -> HeatmapModel:
    """The network of a checkpoint (None: the one shipped with the package), folded and on its device.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another architecture.
    """
    from cryopick.io.checkpoint import find_weights, load_checkpoint
    from cryopick.networks.heatmap_unet import build_heatmap_unet

    checkpoint = load_checkpoint(find_weights(weights or "general"), picker="general")
    card = checkpoint.card
    network = checkpoint.build(build_heatmap_unet)
    calibration = Calibration.from_list(card.postprocessing["calibration"])
    ranges = card.postprocessing.get("activation_ranges")
    return heatmap_model(network, calibration, ranges=ranges, device=device, precision=precision)


def heatmap_model(
    network: HeatmapUNet,
    calibration: Calibration,
    *,
    ranges: Mapping[str, Sequence[float]] | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> HeatmapModel:
    """A network, which is copied, as the picker runs it; 8-bit integers need the `ranges` of its activations.

    Raises
    ------
    SettingsError
        If 8-bit integers are asked for where they cannot be had.
    """
    from cryopick.networks.heatmap_unet import OUTPUTS, TOTAL_STRIDE_PX, fold_batch_norm, without_shape

    folded = without_shape(fold_batch_norm(network))
    runner: nn.Module = folded
    device = chosen_device(device)
    if _chosen_int8(device, precision, has_ranges=ranges is not None):
        from cryopick.networks.heatmap_unet_int8 import Int8HeatmapUNet

        runner, precision = Int8HeatmapUNet(folded, ranges or {}), "float32"
    dense = DenseNetwork.loaded(
        runner,
        device=device,
        precision=precision,
        channels=len(OUTPUTS),
        stride_px=STRIDE_PX,
        multiple_px=TOTAL_STRIDE_PX,
        tile_px=TILE_PX,
    )
    return HeatmapModel(dense, calibration, network.in_channels)


def _chosen_int8(device: str, precision: str, *, has_ranges: bool) -> bool:
    """Whether to run in 8-bit integers; `auto` does on CPUs that have the units, with weights that can."""
    if precision not in ("auto", INT8):
        return False
    from cryopick.networks.heatmap_unet_int8 import is_int8_fast

    lacking = [
        text
        for text, is_there in (
            (f"a CPU, not {device}", device == "cpu"),
            ("weights whose card holds activation_ranges", has_ranges),
            ("a CPU that multiplies 8-bit integers (VNNI), and a torch that uses it", is_int8_fast()),
        )
        if not is_there
    ]
    if precision == INT8 and lacking:
        raise SettingsError(f"precision int8 needs {' and '.join(lacking)}; auto takes the fastest that works here")
    return not lacking


# --------------------------------------------------------------------------------------------------------- picker


@register_picker("general")
@dataclass(frozen=True, kw_only=True)
class GeneralPicker(ChoosesByExpectedF1):
    """Pretrained network on scale-normalised micrographs; measures the diameter when none is given.

    Trained on simulated micrographs alone. The score is the calibrated probability that a pick is a particle within a
    quarter of a diameter; the threshold of a run maximises the expected F1.
    """

    trainable: ClassVar[str] = "cryopick.training.general"
    score_meaning: ClassVar[str] = "probability that the pick is right, 0 to 1, calibrated on simulation"
    marked_power: ClassVar[float] = 1.0
    """Of 0 to 3 best on one real set, as good as any on the other; 0 would serve simulation a little better."""
    fills_machine: ClassVar[bool] = True
    """One process uses all cores; a second one would hold the network and its buffers again."""

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    working_diameter: Annotated[
        Length | None, "size at which the network looks; where not set, fitted near the diameter on the micrographs"
    ] = None
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32, bfloat16 or int8; auto takes the fastest that the hardware has"] = "auto"

    filled_share: Annotated[
        float | None, "share of the area that likely particles cover, 0 to 1; measured by the run"
    ] = None
    measured: Annotated[str, "what the measurement of the diameter found; filled in by the run"] = ""
    contrast_doubt: Annotated[
        str | None, "why particles may be bright where they should be dark; filled in by the run"
    ] = None

    def __post_init__(self) -> None:
        if self.precision not in GENERAL_PRECISIONS:
            raise SettingsError(f"precision is {self.precision!r}, expected {', '.join(GENERAL_PRECISIONS)}")

    def prepare(self, micrographs: Sequence[Micrograph]) -> Self:
        """Measure the diameter on a few micrographs of the run unless it is given, and fit the working scale."""
        if not micrographs:
            return self
        sized = self._sized(micrographs)
        if sized.filled_share is not None:
            return sized
        if sized.diameter is None:
            return replace(sized, contrast_doubt=self._contrast_doubt(micrographs, filled=0.0))
        pieces = look_at_pieces(self._model(), micrographs, sized.working_diameter or sized.diameter)
        filled, measured = filled_share(pieces), sized.measured
        sized = replace(sized, contrast_doubt=self._contrast_doubt(micrographs, filled=filled))
        if sized.working_diameter is None or sized.working_diameter.is_range:
            return sized
        is_empty = looks_empty(pieces, filled=filled, calibrated_share=self.calibrated_share)
        if measured and is_empty and sized.diameter is not None:
            measured = empty_run(sized.diameter)
        return replace(sized, filled_share=filled, measured=measured)

    def _contrast_doubt(self, micrographs: Sequence[Micrograph], *, filled: float) -> str | None:
        return contrast_doubt(self._model(), micrographs, self.diameter, filled=filled)

    def _sized(self, micrographs: Sequence[Micrograph]) -> Self:
        if self.diameter is not None and (self.working_diameter is not None or self.diameter.is_range):
            return self
        diameter, working, measured = find_sizes(self._model(), micrographs, self.diameter)
        return replace(self, diameter=diameter, working_diameter=working, measured=measured)

    @property
    def calibrated_share(self) -> float:
        """Share of right candidates among those of simulation."""
        return self._model().calibration.share

    def pick(self, micrograph: Micrograph) -> Picks:
        """All candidates of one micrograph, best first; `maps` holds the centre heat and the junk probability."""
        # What fills the area matters to the threshold of a run alone; a run that holds nothing stays without a size.
        picker = self if self.measured else self._sized([micrograph])
        doubts = () if self.contrast_doubt is None else (self.contrast_doubt,)
        if picker.diameter is None:  # nothing particle-like at any size
            return Picks.none_on(micrograph, warnings=doubts)
        working = picker.working_diameter or picker.diameter
        scales_px = _scales_px(*working.to_px(micrograph.pixel_size_angstrom))
        found = [picks_at_scale(self._model(), micrograph, diameter_px=diameter_px) for diameter_px in scales_px]
        picks = found[0] if len(found) == 1 else _merge_scales(found)
        return replace(picks, warnings=(*picks.warnings, *doubts))

    def _model(self) -> HeatmapModel:
        return load_model(self.weights, device=self.device, precision=self.precision)


def picks_at_scale(
    model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float, looks: Sequence[Look] = LOOKS
) -> Picks:
    """All candidates of particles about `diameter_px` wide, best first."""
    logits, scale = mean_of_looks(
        micrograph.pixels, model.looked, diameter_px=diameter_px, nominal_px=NOMINAL_PARTICLE_PX, looks=looks
    )
    maps, shade = _as_probabilities(logits[:-1]), logits[-1]
    junk = with_whole_carbon(maps[4], shade, particle_px=NOMINAL_PARTICLE_PX / STRIDE_PX)
    xy_px, index_yx = centres_from_maps(maps, stride_px=STRIDE_PX)
    row, column = index_yx.T
    xy_px = scale.to_stored_xy(xy_px)
    height, width = micrograph.shape_yx
    is_inside = (xy_px >= -0.5).all(axis=1) & (xy_px[:, 0] < width - 0.5) & (xy_px[:, 1] < height - 0.5)
    order = np.flatnonzero(is_inside)
    order = order[np.argsort(-maps[0, row[order], column[order]], kind="stable")]
    row, column = row[order], column[order]
    return Picks(
        xy_px=xy_px[order],
        score=model.calibration(maps[0, row, column]),
        diameter_px=(diameter_px * np.exp(maps[3, row, column])).astype(np.float32),
        micrograph_name=micrograph.name,
        shape_yx=micrograph.shape_yx,
        pixel_size_angstrom=micrograph.pixel_size_angstrom,
        maps={"centre probability": maps[0], JUNK_MAP: junk},
    )


def _scales_px(low_px: float, high_px: float) -> list[float]:
    """Diameters to run at for a range: the network covers a factor of 1.5 around each."""
    count = 1 + int(np.ceil(np.log(high_px / low_px) / np.log(1.5)) if high_px > low_px else 0)
    if count == 1:
        return [float(np.sqrt(low_px * high_px))]
    return [float(d) for d in np.geomspace(low_px, high_px, count)]


def _merge_scales(found: Sequence[Picks]) -> Picks:
    """Candidates of several scales as one list; of those closer than a quarter diameter the best is kept."""
    from scipy.spatial import cKDTree

    score = np.concatenate([picks.score for picks in found])
    order = np.argsort(-score, kind="stable")
    merged = replace(
        found[0],
        xy_px=np.concatenate([picks.xy_px for picks in found])[order],
        score=score[order],
        diameter_px=np.concatenate([picks.diameter_px for picks in found])[order],
        class_id=np.zeros(len(order), np.int32),
        reason=np.full(len(order), ""),
    )
    tree = cKDTree(merged.xy_px)
    is_taken = np.zeros(len(merged), bool)
    is_best = np.zeros(len(merged), bool)
    for i, (xy, diameter_px) in enumerate(zip(merged.xy_px, merged.diameter_px, strict=True)):
        if not is_taken[i]:
            is_best[i] = True
            is_taken[tree.query_ball_point(xy, 0.25 * float(diameter_px))] = True
    return merged.take(is_best)
