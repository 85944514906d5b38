"""Simulated sets in the place of a paper's data, small enough for any machine: its tables' shape, not their figures.

Every set shows one procedural protein at one magnification, as each EMPIAR entry does; the proteins that are tested on
are none of those that are trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.workflows.simulate import simulate


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """One simulated set.

    Parameters
    ----------
    name : stands where the paper has an EMPIAR id
    structure : file of a structure or map, or `random` for a procedural protein
    diameter_angstrom : smallest and largest of the protein
    side_px : of its square micrographs
    snr : matched-filter SNR of the median particle; 16 is easy, 9 medium
    recipe : `clean`, or `segmentation-crf`, which sets its own noise
    """

    name: str
    seed: int
    diameter_angstrom: tuple[float, float] = (140.0, 160.0)
    pixel_size_angstrom: float = 3.0
    side_px: int = 512
    count: int = 2
    snr: float = 16.0
    structure: str = "random"
    recipe: str = "clean"

    def settings(self) -> SimulationSettings:
        """For `cryopick.workflows.simulate`."""
        shape_yx = (self.side_px, self.side_px)
        recipe = replace(named_recipe(self.recipe), shape_yx=shape_yx, pixel_size_angstrom=self.pixel_size_angstrom)
        return SimulationSettings(
            structures=(self.structure,),
            proteins=1,
            diameter_angstrom=self.diameter_angstrom,
            seed=self.seed,
            recipe=recipe,
            snr=None if self.recipe == "segmentation-crf" else self.snr,
        )


def make_stand_ins(folder: Path, sets: Sequence[StandIn], *, tell: Callable[[str], None]) -> dict[str, Path]:
    """Simulate what is missing of these sets in `folder`; their folders by name."""
    made = {}
    for one in sets:
        tell(f"simulating {one.name} ({one.count} micrographs of {one.side_px} x {one.side_px})")
        simulate(folder / one.name, one.settings(), count=one.count)
        made[one.name] = folder / one.name
    return made
