"""Simulated sets in the place of a paper's data, small enough for any machine: its tables' shape, not their figures.

Every set shows one procedural protein at one magnification, as each EMPIAR entry does; the proteins that are tested on
are none of those that are trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryopick.io.files.atomic import write_text_atomic
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.set_json import SETTINGS_FILE
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.series import SimulationSettings
from cryopick.simulation.specimens.barrels import draw_barrels
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
    snr : matched-filter SNR of the median particle; 16 is easy, 9 medium; None takes the
        recipe's dose
    recipe : `clean`, `validation`, or `segmentation-crf`, which sets its own noise
    """

    name: str
    seed: int
    diameter_angstrom: tuple[float, float] = (140.0, 160.0)
    pixel_size_angstrom: float = 3.0
    side_px: int = 512
    count: int = 2
    snr: float | None = 16.0
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


@dataclass(frozen=True, kw_only=True)
class Barrels:
    """A set of barrels like KLH's, rings and rectangles, whose labels tell the view: class_id 1 top, 2 side.

    Parameters
    ----------
    name, seed, count : as of `StandIn`
    side_px, diameter_px, particles : of each micrograph
    noise : standard deviation, in units of the darkness of a wall seen along the axis
    """

    name: str
    seed: int
    count: int = 3
    side_px: int = 620
    diameter_px: float = 36.0
    particles: int = 45
    noise: float = 0.5

    def write(self, folder: Path) -> None:
        """Micrographs as MRC with one CSV of labels each, and `set.json`; what is there is kept."""
        if (folder / SETTINGS_FILE).exists():
            return
        for number in range(self.count):
            drawn = draw_barrels(
                seed=1000 * self.seed + number,
                side_px=self.side_px,
                diameter_px=self.diameter_px,
                count=self.particles,
                noise=self.noise,
            )
            name = f"barrels_{number + 1:04d}"
            write_micrograph(folder / f"{name}.mrc", replace(drawn.micrograph, name=name, pixel_size_angstrom=8.0))
            rows = [f"{x:.3f},{y:.3f},{view}" for (x, y), view in zip(drawn.xy_px, drawn.view, strict=True)]
            write_text_atomic(folder / f"{name}.csv", "\n".join(["x,y,class_id", *rows]) + "\n")
        write_text_atomic(folder / SETTINGS_FILE, json.dumps({"diameter_px": self.diameter_px}) + "\n")


def make_stand_ins(folder: Path, sets: Sequence[StandIn | Barrels], *, tell: Callable[[str], None]) -> dict[str, Path]:
    """Simulate what is missing of these sets in `folder`; their folders by name."""
    made = {}
    for one in sets:
        tell(f"simulating {one.name} ({one.count} micrographs of {one.side_px} x {one.side_px})")
        if isinstance(one, Barrels):
            one.write(folder / one.name)
        else:
            simulate(folder / one.name, one.settings(), count=one.count)
        made[one.name] = folder / one.name
    return made
