"""Small micrographs with dark discs at known places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopick.io.images.micrographs import write_micrograph
from cryopick.types import Micrograph

DIAMETER_PX = 20


def disc_micrograph(name: str, *, seed: int = 0, shape_yx: tuple[int, int] = (120, 160)) -> Micrograph:
    """Three dark discs of 20 px in weak noise on a rectangle; the centres depend on the seed."""
    generator = np.random.default_rng(seed)
    pixels = generator.normal(0, 0.3, shape_yx)
    rows, columns = np.mgrid[: shape_yx[0], : shape_yx[1]]
    for x, y in disc_centres(seed):
        pixels[(columns - x) ** 2 + (rows - y) ** 2 <= (DIAMETER_PX / 2) ** 2] -= 1
    return Micrograph(pixels.astype(np.float32), name=name, pixel_size_angstrom=2.0)


def disc_centres(seed: int) -> np.ndarray:
    """(3, 2) true centres of `disc_micrograph`."""
    shift = np.random.default_rng(seed + 1000).uniform(-6, 6, (3, 2))
    return np.array([[35.0, 30.0], [80.0, 85.0], [125.0, 40.0]]) + shift


@pytest.fixture
def folder_of_discs(tmp_path: Path) -> Path:
    """A folder with three micrographs of three discs each, one of them in a sub-folder."""
    folder = tmp_path / "micrographs"
    for seed, name in enumerate(("m1.mrc", "m2.mrc", "grid two/m3 é.mrc")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(folder / name, disc_micrograph(name, seed=seed))
    return folder
