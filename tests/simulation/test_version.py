"""Kept crops are keyed by `SIMULATION_VERSION`: it must be raised when the simulation gives other crops."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.simulation import SIMULATION_VERSION
from cryopick.simulation.crops import Crop, CropGenerator
from cryopick.simulation.micrograph_crops import MicrographCrops
from cryopick.simulation.recipe import Recipe

CROPS = [[0, 126.405, 58.407], [0, 0.175, 0.007], [5, 159.376, 45.363], [25, 122.818, 38.116]]
"""Of version 1: how many particles, mean and deviation, for crops of a fixed seed."""
WHOLE_MICROGRAPHS = [[6, 123.221, 23.263]]
RECORDED = {1: (CROPS, WHOLE_MICROGRAPHS)}


def fingerprint(crop: Crop) -> list[float]:
    image = crop.image.astype(np.float64)
    return [len(crop.xy_px), float(image.mean()), float(image.std())]


def test_the_simulation_gives_the_crops_of_its_version() -> None:
    generator = CropGenerator(seed=7, crop_px=128, pool_size=3, views_per_species=8)
    sizes = {"crop_px": 96, "particle_px": 20.0, "diameter_error": (0.9, 1.1), "detection_snr": (8.0, 12.0)}
    whole = MicrographCrops(recipe=Recipe(), seed=7, **sizes)
    made = [fingerprint(generator.crop(i)) for i in range(4)] + [fingerprint(whole.crop(0))]
    recorded = [row for rows in RECORDED[SIMULATION_VERSION] for row in rows]
    assert made == [pytest.approx(row, rel=2e-3, abs=1e-3) for row in recorded], (
        "the simulation gives other crops than it did: raise SIMULATION_VERSION and record them here"
    )
