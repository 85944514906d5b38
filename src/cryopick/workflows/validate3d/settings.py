"""What a validation is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryopick.errors import SettingsError

SELECTIONS = ("none", "auto")
DEFAULT_SELECTIONS = SELECTIONS
COMPARISONS = ("truth", "random")
"""Picks that `--compare` makes itself."""


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """What decides the maps besides the picks, the micrographs and their CTF.

    Parameters
    ----------
    see the fields' sentences
    """

    engine: Annotated[str, "what makes the maps: embedded, known (a simulation's angles), relion, cryosparc"] = "known"
    symmetry: Annotated[str, "point group, its axes as RELION's: C1, C4, D7, T, O, I"] = "C1"
    selections: Annotated[tuple[str, ...], "2D selection: none, auto, or a file of class numbers; a row each"] = (
        SELECTIONS
    )
    seeds: Annotated[int, "starts of every map; the table shows their mean and the best"] = 3
    seed: Annotated[int, "of everything that is drawn: half sets, random picks, starts"] = 0
    low_pass_angstrom: Annotated[float, "what a reference is low-passed to; 0 is a fifth of the diameter, or 60 Å"] = (
        0.0
    )
    max_particles: Annotated[int, "particles of a run, drawn at random where it has more; 0 is all"] = 0
    penalty_angstrom: Annotated[
        float, "resolution that a failed map counts with; 0 is twice the worst that succeeded"
    ] = 0.0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise SettingsError(f"seeds is {self.seeds}, expected 1 or more")
        if self.seed < 0 or self.max_particles < 0 or self.low_pass_angstrom < 0 or self.penalty_angstrom < 0:
            raise SettingsError(
                "seed, max_particles, low_pass_angstrom and penalty_angstrom are 0 or more; got "
                f"{self.seed}, {self.max_particles}, {self.low_pass_angstrom:g}, {self.penalty_angstrom:g}"
            )
        if not self.selections or len(set(self.selections)) < len(self.selections):
            raise SettingsError(f"selections are {', '.join(self.selections)}; expected each once, at least one")
