"""The fixed simulated suite that benchmarks quote: eight procedural proteins at three signal-to-noise ratios."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cryopick.errors import SettingsError
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.recipe import Recipe, named_recipe
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
        clean = named_recipe("clean")
        return replace(
            clean,
            shape_yx=SHAPE_YX,
            pixel_size_angstrom=self.protein.pixel_size_angstrom,
            layout=replace(clean.layout, coverage=(0.15, 0.3), spacing_diameters=(0.95, 1.1)),
            ice=replace(clean.ice, thickness_angstrom=(250.0, 400.0), gradient=(0.0, 0.3), waviness=(0.0, 0.03)),
            dirt=replace(clean.dirt, blob_probability=0.5, carbon_probability=0.25, fragment_probability=0.3),
            optics=replace(clean.optics, defocus_um=(1.0, 2.5), b_factor_angstrom2=(60.0, 120.0)),
        )

    def imager(self) -> SpecimenImager:
        """The protein at the pixel size of the set."""
        rng = np.random.default_rng([SUITE_SEED, self.number])
        protein = self.protein
        volume = random_protein(
            rng,
            diameter_angstrom=protein.diameter_angstrom,
            family=protein.family,
            voxel_size_angstrom=protein.pixel_size_angstrom,
        )
        return SpecimenImager(Specimen(volume, protein.diameter_angstrom), protein.pixel_size_angstrom)

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


def suite_sets(*, levels: tuple[str, ...] = tuple(SNR_OF_LEVEL)) -> list[SuiteSet]:
    """All sets of the suite, or those of some levels.

    Raises
    ------
    SettingsError
        For an unknown level.
    """
    unknown = [level for level in levels if level not in SNR_OF_LEVEL]
    if unknown:
        raise SettingsError(f"suite level {unknown[0]!r} is unknown; known: {', '.join(SNR_OF_LEVEL)}")
    return [SuiteSet(protein, level, number) for number, protein in enumerate(SUITE_PROTEINS) for level in levels]
