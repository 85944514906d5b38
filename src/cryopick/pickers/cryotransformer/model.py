"""Running the small detection transformer of `cryotransformer` on whole micrographs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.inference.channels_last import channels_last
from cryopick.inference.dense import DenseNetwork, sigmoid
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import NOMINAL_PARTICLE_PX, network_planes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryopick.pickers.cryotransformer.network import Attention, LocalDetectionTransformer

PROPOSAL_FLOOR = 0.03
"""Proposals less probable become no queries, in training and in picking; far below any useful threshold."""
CANDIDATE_FLOOR = 0.01
"""Answers less probable are no candidates."""
NETWORK = "detection_transformer_local"


@dataclass(frozen=True, eq=False)
class SetPrediction:
    """The particles that a network sees in one image; no two answers are merged or suppressed.

    Parameters
    ----------
    xy_px : (n, 2) centres, pixels of the image
    diameter_ratio : (n,) diameter over the nominal one
    score : (n,) probability, not calibrated
    heat : (h / 2, w / 2) probability of a centre, from the convolutional part
    junk : (h / 2, w / 2) probability of carbon, ice, contamination
    """

    xy_px: NDArray[np.float64]
    diameter_ratio: NDArray[np.float64]
    score: NDArray[np.float64]
    heat: NDArray[np.float32]
    junk: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LocalSetModel:
    """A loaded network with its calibration.

    Parameters
    ----------
    dense : its convolutional part
    network : the same network; its decoder is used, in float32
    calibration : of the answers' probabilities
    """

    dense: DenseNetwork
    network: LocalDetectionTransformer
    calibration: Calibration

    def __call__(self, working: NDArray[np.float32]) -> SetPrediction:
        """A working image to its particles."""
        return self.with_attention(working, seen=None)[0]

    def with_attention(
        self, working: NDArray[np.float32], *, seen: list[Attention] | None
    ) -> tuple[SetPrediction, NDArray[np.intp]]:
        """The particles and the number of each one's query; `seen` gets what every query looked at in each layer."""
        import torch

        from cryopick.pickers.cryotransformer.network import DENSE_PLANES, PROPOSAL_PLANES, select_queries

        count = self.network.encoder.trunk.in_channels
        maps = self.dense(network_planes(working, particle_px=NOMINAL_PARTICLE_PX, count=count))
        with torch.inference_mode():
            dense = torch.from_numpy(maps)[None].to(self.dense.device)
            queries, index = select_queries(dense[:, :PROPOSAL_PLANES], floor=PROPOSAL_FLOOR)
            stages = self.network.decode(dense[:, DENSE_PLANES:], queries, index, seen=seen)
            answers = stages[-1] if stages else queries
            heat = torch.nn.functional.pixel_shuffle(dense[:, PROPOSAL_PLANES:DENSE_PLANES], 2)[0].cpu().numpy()
        score = sigmoid(answers.logit.cpu().numpy()).astype(np.float64)
        candidates = np.flatnonzero(score >= CANDIDATE_FLOOR)
        prediction = SetPrediction(
            xy_px=answers.xy_px.cpu().numpy().astype(np.float64)[candidates],
            diameter_ratio=np.exp(answers.log_size.cpu().numpy().astype(np.float64).clip(-2, 2))[candidates],
            score=score[candidates],
            heat=sigmoid(heat[0]),
            junk=sigmoid(heat[4]),
        )
        return prediction, candidates


def local_model(
    network: LocalDetectionTransformer, calibration: Calibration, *, device: str = "auto", precision: str = "auto"
) -> LocalSetModel:
    """A network, which is copied, as the picker runs it."""
    import torch

    from cryopick.heatmap.layout import TOTAL_STRIDE_PX, TRUNK_STRIDE_PX
    from cryopick.heatmap.network import fold_batch_norm
    from cryopick.pickers.cryotransformer.network import DENSE_PLANES

    network = deepcopy(network).eval().float()
    dense = DenseNetwork.loaded(
        fold_batch_norm(network.encoder),
        device=device,
        precision=precision,
        channels=DENSE_PLANES + network.encoder.tokens,
        stride_px=TRUNK_STRIDE_PX,
        multiple_px=TOTAL_STRIDE_PX,
    )
    return LocalSetModel(dense, network.to(torch.device(dense.device)), calibration)


def build_local(architecture: Mapping[str, Any]) -> LocalDetectionTransformer:
    """The network that a card's architecture describes, channels last in memory (fast on CPUs)."""

    from cryopick.pickers.cryotransformer.network import LocalDetectionTransformer

    settings = {name: value for name, value in architecture.items() if name != "network"}
    for name in ("trunk_widths", "trunk_depths"):
        settings[name] = tuple(settings[name])
    return channels_last(LocalDetectionTransformer(**settings))
