"""A small protein and images of it, made once."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.reconstruction.particles import ParticleStack
from cryopick.reconstruction.poses import Poses
from cryopick.reconstruction.simulated import simulated_stack
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Volume


@pytest.fixture(scope="session")
def ribosome() -> Volume:
    """A dense particle of 240 Å without symmetry in a box of 40 px of 9 Å."""
    return random_protein(
        np.random.default_rng(5), family="ribonucleoprotein", diameter_angstrom=240.0, voxel_size_angstrom=9.0
    )


@pytest.fixture(scope="session")
def imaged_ribosome(ribosome: Volume) -> tuple[ParticleStack, Poses]:
    """400 images of it and the truth."""
    return simulated_stack(ribosome, 400, dose_e_per_angstrom2=4.0, rng=np.random.default_rng(6))
