"""Learning from quarters of wide simulated crops.

What a network sees of a quarter is made of the whole crop, so that a quarter deep in carbon looks dark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.simulation.crops import Crop, CropGenerator
from cryopick.training.crop_bank import SimulatedCrops

Example = dict[str, NDArray[Any]]
"""What a network learns from at a time, by name: what it sees, and what it should answer."""
QUARTERS_PER_CROP = 2
"""Of the four that a crop has."""


@dataclass(frozen=True, kw_only=True)
class CropTask:
    """Settings of a task that learns from simulated crops; the same ones give the same crops, made only once."""

    crop_px: Annotated[int, "side of a crop, working pixels"] = 448
    far_scale_share: Annotated[float, "share of crops whose particles have any size from 0.35 to 3.5 of nominal"] = 0.15
    micrograph_share: Annotated[float, "share of crops that are whole simulated micrographs, resampled"] = 0.65
    simulation_seed: Annotated[int, "seed of the simulated crops"] = 1
    distinct_crops: Annotated[int, "crops before they repeat, turned; kept on disk. 0: never repeated or kept"] = 16_384
    validation_crops: Annotated[int, "simulated crops that judge the network; other seed"] = 48
    calibration_crops: Annotated[int, "simulated crops that the probabilities are calibrated on; a third seed"] = 128

    def training_crops(self) -> SimulatedCrops | CropGenerator:
        """The crops that teach, in their order."""
        return self._crops(self.simulation_seed, far_scale_share=self.far_scale_share, count=self.distinct_crops)

    def crops_to_judge(self) -> list[Crop]:
        """What the network is validated on, particles near the nominal size."""
        return self._held_out(self.validation_crops, seed=self.simulation_seed + 1000)

    def crops_to_calibrate(self) -> list[Crop]:
        """What probabilities are calibrated on, used for nothing else."""
        return self._held_out(self.calibration_crops, seed=self.simulation_seed + 2000)

    def _held_out(self, count: int, *, seed: int) -> list[Crop]:
        source = self._crops(seed, far_scale_share=0.0, count=0)
        return [source.crop(index) for index in range(count)]

    def _crops(self, seed: int, *, far_scale_share: float, count: int) -> SimulatedCrops:
        return SimulatedCrops(self.crop_px, far_scale_share, seed, count=count, micrograph_share=self.micrograph_share)


@dataclass(frozen=True, kw_only=True)
class QuarterTask(CropTask):
    """Settings of a task that learns from quarters of them."""

    batch_size: Annotated[int, "quarters of crops per batch, an even number"] = 16
    crop_px: Annotated[int, "side of a crop, working pixels; two of its quarters are learnt from at a time"] = 448

    def __post_init__(self) -> None:
        if self.crop_px % 32:
            raise SettingsError(f"[task] crop_px is {self.crop_px}, expected a multiple of 32")
        if self.batch_size % QUARTERS_PER_CROP:
            raise SettingsError(f"[task] batch_size is {self.batch_size}, expected an even number")

    @property
    def learns_from_quarters(self) -> bool:
        """Whether two quarters of a crop are learnt from, or all of it."""
        return True

    @property
    def example_px(self) -> int:
        """Side of what the network learns from at a time, working pixels."""
        return self.crop_px // 2 if self.learns_from_quarters else self.crop_px

    @property
    def crops_per_batch(self) -> int:
        """Simulated crops that make one batch."""
        return self.batch_size // QUARTERS_PER_CROP if self.learns_from_quarters else self.batch_size


def keep_crops(crops: SimulatedCrops | CropGenerator, count: int, tell: Callable[[int, int], None]) -> None:
    """Makes the first `count` crops, unless they are on disk or are not to be kept there."""
    if isinstance(crops, SimulatedCrops):
        crops.keep(count, tell)


def some_quarters(rng: np.random.Generator) -> list[int]:
    """Numbers of the quarters that are learnt from, of one crop."""
    return [int(number) for number in rng.permutation(4)[:QUARTERS_PER_CROP]]


def quarter(example: Example, number: int) -> Example:
    """A quarter of every map (…, 2 h, 2 w) of any size: number 0 is at the top left, 1 at the top right, and so on."""
    row, column = divmod(number, 2)

    def part(array: NDArray[Any]) -> NDArray[Any]:
        if array.ndim < 2:
            return array
        height, width = array.shape[-2] // 2, array.shape[-1] // 2
        return array[..., row * height : (row + 1) * height, column * width : (column + 1) * width]

    return {name: part(array) for name, array in example.items()}


def inside_quarter(rows: NDArray[np.float64], number: int, side_px: int) -> NDArray[np.float64]:
    """The rows (x, y, …) whose centre lies in a quarter of that side, numbered as by `quarter`, seen from it."""
    row, column = divmod(number, 2)
    xy_px = rows[:, :2] - np.array([column, row]) * side_px
    is_inside = ((xy_px >= -0.5) & (xy_px < side_px - 0.5)).all(axis=1)
    return np.asarray(np.column_stack([xy_px, rows[:, 2:]])[is_inside], np.float64)
