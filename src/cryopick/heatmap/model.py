"""The heat-map network as it is run: from a micrograph to candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.heatmap.carbon import with_whole_carbon
from cryopick.heatmap.layout import OUTPUTS, STRIDE_PX, TOTAL_STRIDE_PX, tensor_shapes
from cryopick.heatmap.second_look import doubted, in_noise, stands_out, without_doubted_junk
from cryopick.inference.dense import DenseNetwork, TileNetwork, sigmoid
from cryopick.inference.device import PRECISIONS, chosen_bfloat16, chosen_device
from cryopick.inference.looks import LOOKS, Look, mean_of_looks, seen_turned
from cryopick.inference.models import Models
from cryopick.inference.processor import multiplies_bfloat16, multiplies_int8
from cryopick.inference.runtime import OPENVINO, TORCH, runtime_on
from cryopick.io.weights import Checkpoint, ModelCard, files_of_weights, find_weights, open_checkpoint, read_card
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, network_planes, resample
from cryopick.types import JUNK_MAP, Micrograph, Picks

if TYPE_CHECKING:
    from cryopick.heatmap.network import HeatmapUNet

TILE_PX = 1536
"""Largest side that the network sees at once: fewer and larger tiles read less twice, and hold more memory."""
INT8 = "int8"
GENERAL_PRECISIONS = (*PRECISIONS, INT8)
CANDIDATE_FLOOR = 0.02
"""Map values below it are never candidates; far below any useful threshold."""


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


@dataclass(frozen=True, eq=False)
class HeatmapModel:
    """A loaded network with its calibration, ready to map working images.

    Parameters
    ----------
    dense : the network, batch norms folded
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

    def logits_at(self, working: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
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


def load_model(weights: Path | None, *, device: str = "auto", precision: str = "auto") -> HeatmapModel:
    """The network of a checkpoint (None: the one shipped with the package), folded and on its device.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another architecture.
    SettingsError
        If the device is not there, or cannot compute as it is asked to.
    """
    device = chosen_device(device)
    uses_torch = runtime_on(device) == TORCH
    with open_checkpoint(weights or "general", picker="general", as_arrays=not uses_torch) as checkpoint:
        card = checkpoint.card
        calibration = Calibration.from_list(card.postprocessing["calibration"])
        if uses_torch:
            from cryopick.heatmap.network import build_heatmap_unet

            network = checkpoint.build(build_heatmap_unet)
            return heatmap_model(network, calibration, device=device, precision=precision)
        checkpoint.require_shapes(checkpoint.described(tensor_shapes))
        in_force = _precision_in_force(device, precision, card)
        seen = _openvino_network(checkpoint, precision=in_force)
        return HeatmapModel(_dense(seen, device=device), calibration, int(card.architecture["in_channels"]))


def _openvino_network(checkpoint: Checkpoint, *, precision: str) -> TileNetwork:
    from cryopick.heatmap.graph import heatmap_graph
    from cryopick.inference.openvino_network import OpenVinoNetwork

    card = checkpoint.card
    ranges = card.postprocessing["activation_ranges"] if precision == INT8 else None
    graph = heatmap_graph(checkpoint.tensors, card.architecture, ranges=ranges)
    return OpenVinoNetwork(graph, is_bfloat16=precision == "bfloat16")


def _dense(network: TileNetwork, *, device: str) -> DenseNetwork:
    return DenseNetwork(
        network,
        device=device,
        channels=len(OUTPUTS),
        stride_px=STRIDE_PX,
        multiple_px=TOTAL_STRIDE_PX,
        tile_px=TILE_PX,
    )


def kept_model(
    models: Models, weights: Path | None = None, *, device: str = "auto", precision: str = "auto"
) -> HeatmapModel:
    """As `load_model`, held by `models`: every picker that measures the diameter looks through the shipped one."""
    return models.get(load_model, files_of_weights(weights or "general"), weights, device=device, precision=precision)


def heatmap_model(
    network: HeatmapUNet, calibration: Calibration, *, device: str = "auto", precision: str = "auto"
) -> HeatmapModel:
    """A network of torch, which is copied, as torch runs it: in training, and on graphics cards.

    Raises
    ------
    SettingsError
        If the device is not there, or `precision` is none that torch computes in.
    """
    from cryopick.heatmap.network import fold_batch_norm, without_shape
    from cryopick.inference.torch_network import TorchNetwork

    folded = without_shape(fold_batch_norm(network))
    seen = TorchNetwork.loaded(folded, device=device, precision=precision)
    return HeatmapModel(_dense(seen, device=seen.device), calibration, network.in_channels)


def precision_in_force(weights: Path | None, *, device: str, precision: str) -> str:
    """What a precision means for weights (None: the shipped ones) on a device; nothing but their card is read.

    Raises
    ------
    WeightsError
        If the card is missing or damaged.
    SettingsError
        If the device cannot compute in it.
    """
    return _precision_in_force(device, precision, read_card(find_weights(weights or "general")))


def _precision_in_force(device: str, precision: str, card: ModelCard) -> str:
    is_openvino = runtime_on(device) == OPENVINO
    has_ranges = card.postprocessing.get("activation_ranges") is not None
    if precision in ("auto", INT8):
        lacking = [
            text
            for text, is_there in (
                (f"a CPU, not {device}", device == "cpu"),
                ("weights whose card holds activation_ranges", has_ranges),
                ("a CPU that multiplies 8-bit integers (VNNI)", multiplies_int8()),
                ("OpenVINO (pip install openvino)", is_openvino),
            )
            if not is_there
        ]
        if not lacking:
            return INT8
        if precision == INT8:
            raise SettingsError(f"precision int8 needs {' and '.join(lacking)}; auto takes the fastest that works here")
    is_bfloat16 = chosen_bfloat16(device, precision)
    if is_bfloat16 and is_openvino and not multiplies_bfloat16():
        raise SettingsError(
            "precision bfloat16 needs a CPU that multiplies such numbers (AVX512_BF16 or AMX); float32 works everywhere"
        )
    return "bfloat16" if is_bfloat16 else "float32"


def picks_at_scale(
    model: HeatmapModel, micrograph: Micrograph, *, diameter_px: float, looks: Sequence[Look] = LOOKS
) -> Picks:
    """All candidates of particles about `diameter_px` wide, best first.

    Likely ones on junk are looked at again in noise where the contrast is high, unless only one look is asked for.
    """
    first_view = resample(micrograph.pixels, factor=NOMINAL_PARTICLE_PX / diameter_px)
    logits, scale = mean_of_looks(
        micrograph.pixels,
        model.logits_at,
        diameter_px=diameter_px,
        nominal_px=NOMINAL_PARTICLE_PX,
        looks=looks,
        first_view=first_view,
    )
    maps, shade = _as_probabilities(logits[:-1]), logits[-1]
    junk = with_whole_carbon(maps[4], shade, particle_px=NOMINAL_PARTICLE_PX / STRIDE_PX)
    xy_px, index_yx = centres_from_maps(maps, stride_px=STRIDE_PX)
    row, column = index_yx.T
    height = maps[0, row, column]
    score = model.calibration(height)
    is_doubted = doubted(junk[row, column], score)
    if len(looks) > 1 and is_doubted.any() and stands_out(model.planes(first_view[0])[0]):
        noisy, _ = mean_of_looks(
            micrograph.pixels,
            lambda working, look: model.logits_at(in_noise(working, particle_px=NOMINAL_PARTICLE_PX), look),
            diameter_px=diameter_px,
            nominal_px=NOMINAL_PARTICLE_PX,
            looks=looks,
            first_view=first_view,
        )
        junk = without_doubted_junk(
            junk,
            index_yx[is_doubted],
            noisy_centre=sigmoid(noisy[0]),
            noisy_junk=sigmoid(noisy[4]),
            particle_px=NOMINAL_PARTICLE_PX / STRIDE_PX,
        )
    return Picks.of_candidates(
        micrograph,
        scale.to_stored_xy(xy_px),
        score,
        diameter_px * np.exp(maps[3, row, column]),
        rank=height,
        maps={"centre probability": maps[0], JUNK_MAP: junk},
    )
