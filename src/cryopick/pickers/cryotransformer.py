"""`cryotransformer`: particles as a set, predicted by a detection transformer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.pickers.cryotransformer_local import NOMINAL_PARTICLE_PX, LocalSetModel, build_local, local_model
from cryopick.pickers.dense import PRECISIONS
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.registry import register_picker
from cryopick.processing.probability import Calibration
from cryopick.processing.scale import network_planes, resample
from cryopick.types import JUNK_MAP, Micrograph, Picks


@lru_cache(maxsize=4)
def load_set_model(weights: Path | None, *, device: str = "auto", precision: str = "auto") -> LocalSetModel:
    """The network of a checkpoint (None: the one shipped with the package), on its device.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another architecture.
    """
    from cryopick.io.checkpoint import find_weights, load_checkpoint

    checkpoint = load_checkpoint(find_weights(weights or "cryotransformer"), picker="cryotransformer")
    calibration = Calibration.from_list(checkpoint.card.postprocessing["calibration"])
    network = build_local(checkpoint.card.architecture)
    checkpoint.load_into(network)
    return local_model(network, calibration, device=device, precision=precision)


@register_picker("cryotransformer")
@dataclass(frozen=True, kw_only=True)
class CryoTransformerPicker(ChoosesByExpectedF1):
    """Particles as a set, predicted by a detection transformer (A. Dhakal et al., Bioinformatics 40, 2024, btae109).

    One query answers for one particle, so nothing is suppressed afterwards. The shipped weights learnt from simulated
    micrographs alone. The score is the calibrated probability that a pick is a particle within a quarter of a diameter;
    the threshold of a run maximises the expected F1.
    """

    trainable: ClassVar[str] = "cryopick.training.cryotransformer"
    score_meaning: ClassVar[str] = "probability that the pick is right, 0 to 1, calibrated on simulation"
    fills_machine: ClassVar[bool] = True
    """One process uses all cores; a second one would hold the network and its buffers again."""

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    working_diameter: Annotated[
        Length | None, "size at which the network looks; where not set, fitted near the diameter on the micrographs"
    ] = None
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32 or bfloat16; auto takes bfloat16 where the hardware has it"] = "auto"

    measured: Annotated[str, "what the measurement of the diameter found; filled in by the run"] = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"precision is {self.precision!r}, expected {', '.join(PRECISIONS)}")

    def prepare(self, micrographs: Sequence[Micrograph]) -> Self:
        """Measure the diameter on a few micrographs of the run unless it is given, and fit the working scale."""
        from cryopick.pickers.diameter import estimate_diameter, fit_working_diameter
        from cryopick.pickers.general import load_model

        if not micrographs:
            return self
        measuring = load_model(None, device=self.device, precision=self.precision)
        if self.diameter is None:
            estimate = estimate_diameter(measuring, micrographs)
            if estimate is None:
                return replace(self, measured="nothing looks like a particle at any size; --diameter searches for one")
            diameter = estimate.diameter
            return replace(self, diameter=diameter, working_diameter=diameter, measured=str(estimate))
        if self.working_diameter is not None or self.diameter.is_range:
            return self
        return replace(self, working_diameter=fit_working_diameter(measuring, micrographs, self.diameter))

    @property
    def calibrated_share(self) -> float:
        """Share of right candidates among those of simulation."""
        return self._model().calibration.share

    def pick(self, micrograph: Micrograph) -> Picks:
        """All answers of the network, best first; `maps` holds the centre heat and the junk probability."""
        picker = self if self.diameter is not None else self.prepare([micrograph])
        working = picker.working_diameter or picker.diameter
        if working is None:  # nothing particle-like at any size
            return Picks(
                xy_px=np.zeros((0, 2)),
                micrograph_name=micrograph.name,
                shape_yx=micrograph.shape_yx,
                pixel_size_angstrom=micrograph.pixel_size_angstrom,
            )
        low_px, high_px = working.to_px(micrograph.pixel_size_angstrom)
        return local_picks(self._model(), micrograph, diameter_px=float(np.sqrt(low_px * high_px)))

    def _model(self) -> LocalSetModel:
        return load_set_model(self.weights, device=self.device, precision=self.precision)


def local_picks(model: LocalSetModel, micrograph: Micrograph, *, diameter_px: float) -> Picks:
    """All answers of the small network for particles about `diameter_px` wide, best first; none is suppressed."""
    working, scale = resample(micrograph.pixels, factor=NOMINAL_PARTICLE_PX / diameter_px)
    found = model(network_planes(working, particle_px=NOMINAL_PARTICLE_PX))
    xy_px = scale.to_stored_xy(found.xy_px)
    order = in_order(xy_px, found.score, shape_yx=micrograph.shape_yx)
    return Picks(
        xy_px=xy_px[order],
        score=model.calibration(found.score[order]),
        diameter_px=(diameter_px * found.diameter_ratio[order]).astype(np.float32),
        micrograph_name=micrograph.name,
        shape_yx=micrograph.shape_yx,
        pixel_size_angstrom=micrograph.pixel_size_angstrom,
        maps={"centre probability": found.heat, JUNK_MAP: found.junk},
    )


def in_order(xy_px: NDArray[np.float64], score: NDArray[np.float64], *, shape_yx: tuple[int, int]) -> NDArray[np.intp]:
    """Indices of the centres inside the micrograph, best score first."""
    height, width = shape_yx
    is_inside = (xy_px >= -0.5).all(axis=1) & (xy_px[:, 0] < width - 0.5) & (xy_px[:, 1] < height - 0.5)
    inside = np.flatnonzero(is_inside)
    return inside[np.argsort(-score[inside], kind="stable")]
