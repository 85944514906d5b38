"""The fixed simulated suite that benchmarks quote: eight procedural proteins at three signal-to-noise ratios.

Beside its sets of good micrographs, `suite_sessions` gives whole sessions, most of whose micrographs hold nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cryopick.errors import SettingsError
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.recipe import Recipe, named_recipe
from cryopick.simulation.session import KINDS, draw_regime, session_kinds, simulate_of_kind
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein

SUITE_SEED = 20250117
"""Changing it, or anything that the suite depends on, makes a new suite: give it a new version."""
SUITE_VERSION = 1
MICROGRAPHS_PER_SET = 3
SHAPE_YX = (1024, 1024)
SNR_OF_LEVEL = {"easy": 16.0, "medium": 9.0, "hard": 6.0}
"""Median ideal matched-filter SNR of a particle; on `hard` even the ideal detector misses some."""


@dataclass(frozen=True)
class SuiteProtein:
    """One protein of the suite: a family of `random_protein` and a size that picking meets."""

    family: str
    diameter_angstrom: float
    pixel_size_angstrom: float


SUITE_PROTEINS = (
    SuiteProtein("globular", 90.0, 2.2),
    SuiteProtein("rod", 170.0, 2.6),
    SuiteProtein("ring", 120.0, 2.4),
    SuiteProtein("shell", 260.0, 4.0),
    SuiteProtein("barrel", 160.0, 2.8),
    SuiteProtein("assembly", 140.0, 2.6),
    SuiteProtein("membrane", 110.0, 2.3),
    SuiteProtein("flexible", 180.0, 2.8),
)


@dataclass(frozen=True)
class SuiteSet:
    """One protein at one level; `number` is its place among the proteins."""

    protein: SuiteProtein
    level: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.protein.family}-{self.level}"

    @property
    def recipe(self) -> Recipe:
        """Moderate density, some dirt, raw look."""
        return _recipe_for(self.protein)

    def imager(self) -> SpecimenImager:
        """The protein at the pixel size of the set."""
        return _imager_of(self.protein, SUITE_SEED, self.number)

    def micrographs(self, imager: SpecimenImager | None = None, *, workers: int = 1) -> Iterator[SimulatedMicrograph]:
        """The micrographs of the set, always the same."""
        imager = imager or self.imager()
        for index in range(MICROGRAPHS_PER_SET):
            yield simulate_micrograph(
                self.recipe,
                SUITE_SEED + self.number,
                imagers=[imager],
                index=index,
                name=f"{self.name}-{index + 1}",
                workers=workers,
                target_snr=SNR_OF_LEVEL[self.level],
            )


def _recipe_for(protein: SuiteProtein) -> Recipe:
    clean = named_recipe("clean")
    return replace(
        clean,
        shape_yx=SHAPE_YX,
        pixel_size_angstrom=protein.pixel_size_angstrom,
        layout=replace(clean.layout, coverage=(0.15, 0.3), spacing_diameters=(0.95, 1.1)),
        ice=replace(clean.ice, thickness_angstrom=(250.0, 400.0), gradient=(0.0, 0.3), waviness=(0.0, 0.03)),
        dirt=replace(clean.dirt, blob_probability=0.5, carbon_probability=0.25, fragment_probability=0.3),
        optics=replace(clean.optics, defocus_um=(1.0, 2.5), b_factor_angstrom2=(60.0, 120.0)),
    )


def _imager_of(protein: SuiteProtein, seed: int, number: int) -> SpecimenImager:
    volume = random_protein(
        np.random.default_rng([seed, number]),
        diameter_angstrom=protein.diameter_angstrom,
        family=protein.family,
        voxel_size_angstrom=protein.pixel_size_angstrom,
    )
    return SpecimenImager(Specimen(volume, protein.diameter_angstrom), protein.pixel_size_angstrom)


def suite_sets(*, levels: tuple[str, ...] = tuple(SNR_OF_LEVEL)) -> list[SuiteSet]:
    """All sets of the suite, or those of some levels.

    Raises
    ------
    SettingsError
        For an unknown level.
    """
    _check_names("suite level", levels, SNR_OF_LEVEL)
    return [SuiteSet(protein, level, number) for number, protein in enumerate(SUITE_PROTEINS) for level in levels]


# ----------------------------------------------------------------------------------------------------------- sessions

SESSION_SEEDS = {"choose": 20261130, "judge": 20270704}
"""Choose constants on the one, judge on the other: nothing may be chosen on the sessions that the benchmark quotes."""
SESSION_PROTEINS = {
    "choose": (
        SuiteProtein("globular", 110.0, 2.4),
        SuiteProtein("barrel", 180.0, 2.8),
        SuiteProtein("barrel", 260.0, 3.8),
        SuiteProtein("ring", 130.0, 2.6),
        SuiteProtein("ribonucleoprotein", 220.0, 3.2),
        SuiteProtein("multilobed", 150.0, 2.6),
        SuiteProtein("membrane", 90.0, 2.2),
        SuiteProtein("shell", 300.0, 4.2),
    ),
    "judge": (
        SuiteProtein("globular", 80.0, 2.0),
        SuiteProtein("barrel", 140.0, 2.6),
        SuiteProtein("barrel", 290.0, 4.0),
        SuiteProtein("ring", 165.0, 2.8),
        SuiteProtein("ribonucleoprotein", 250.0, 3.4),
        SuiteProtein("multilobed", 200.0, 3.0),
        SuiteProtein("assembly", 115.0, 2.3),
        SuiteProtein("shell", 350.0, 4.5),
    ),
}
"""Of 80 to 350 Å and 37 to 78 px; two of each eight are hollow cylinders, one a hollow ball."""
SESSION_WEIGHTS: Mapping[str, Mapping[str, int]] = {
    "mostly-empty": {"full": 1, "sparse": 1, "empty": 3},
    "lone": {"full": 1, "empty": 20},
    "mixed": dict.fromkeys(KINDS, 1),
}
"""How many micrographs of each kind a session has."""
SESSION_SIDE_DIAMETERS = 20
"""Sides of the micrographs, up to the next 128 px and no less than those of the sets, so that large particles are many
enough for F1 to mean something."""


@dataclass(frozen=True)
class SuiteSession:
    """One session of the suite: micrographs of one protein under one regime, their order and kinds fixed.

    Parameters
    ----------
    purpose : of `SESSION_SEEDS`
    protein, level, number : as in `SuiteSet`
    arrangement : of `SESSION_WEIGHTS`
    """

    purpose: str
    protein: SuiteProtein
    level: str
    number: int
    arrangement: str = "mostly-empty"

    @property
    def name(self) -> str:
        """Unlike that of any other session or set of the suite."""
        protein = f"{self.protein.family}{self.protein.diameter_angstrom:.0f}"
        return f"{self.purpose}-{protein}-{self.level}-{self.arrangement}"

    @property
    def seed(self) -> int:
        """Of the regime and of the micrographs; the same for all levels, which differ in the dose alone."""
        return SESSION_SEEDS[self.purpose] + 1000 * list(SESSION_WEIGHTS).index(self.arrangement) + self.number

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the micrographs, in order."""
        weights = SESSION_WEIGHTS[self.arrangement]
        return session_kinds(weights, count=sum(weights.values()), seed=self.seed)

    def imager(self) -> SpecimenImager:
        """The protein at the pixel size of the session."""
        return _imager_of(self.protein, SESSION_SEEDS[self.purpose], self.number)

    def micrographs(self, imager: SpecimenImager | None = None, *, workers: int = 1) -> Iterator[SimulatedMicrograph]:
        """The micrographs of the session with their kinds, always the same."""
        imagers = [imager or self.imager()]
        diameter_px = self.protein.diameter_angstrom / self.protein.pixel_size_angstrom
        side_px = max(min(SHAPE_YX), 128 * math.ceil(SESSION_SIDE_DIAMETERS * diameter_px / 128))
        recipe = replace(_recipe_for(self.protein), shape_yx=(side_px, side_px))
        regime = draw_regime(recipe, self.seed, imagers=imagers, snr=SNR_OF_LEVEL[self.level])
        for index, kind in enumerate(self.kinds):
            name = f"{self.name}-{index + 1:02d}"
            yield simulate_of_kind(regime, kind, self.seed, imagers=imagers, index=index, name=name, workers=workers)


def suite_sessions(
    purpose: str,
    *,
    levels: Sequence[str] = tuple(SNR_OF_LEVEL),
    arrangements: Sequence[str] = ("mostly-empty",),
) -> list[SuiteSession]:
    """Sessions of eight proteins; the two purposes share neither proteins nor seeds with each other or with the sets.

    Parameters
    ----------
    purpose : `choose` for choosing constants and weights, `judge` for saying how good the choice is
    levels : of `SNR_OF_LEVEL`
    arrangements : of `SESSION_WEIGHTS`

    Raises
    ------
    SettingsError
        For an unknown purpose, level or arrangement.
    """
    _check_names("purpose", [purpose], SESSION_SEEDS)
    _check_names("suite level", levels, SNR_OF_LEVEL)
    _check_names("arrangement", arrangements, SESSION_WEIGHTS)
    return [
        SuiteSession(purpose, protein, level, number, arrangement)
        for arrangement in arrangements
        for number, protein in enumerate(SESSION_PROTEINS[purpose])
        for level in levels
    ]


def _check_names(what: str, given: Sequence[str], known: Mapping[str, object]) -> None:
    unknown = [one for one in given if one not in known]
    if unknown:
        raise SettingsError(f"{what} {unknown[0]!r} is unknown; known: {', '.join(known)}")
