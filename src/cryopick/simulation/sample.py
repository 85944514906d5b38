"""A small sample for `make demo`, the examples and the tests: dark particles in noise, with their true centres."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.types import Micrograph, Picks

PIXEL_SIZE_ANGSTROM = 2.0
DIAMETER_ANGSTROM = 140.0
SHAPE_YX = (768, 1024)
ELECTRON_WAVELENGTH_ANGSTROM = 0.0197  # at 300 kV
SPHERICAL_ABERRATION_ANGSTROM = 2.7e7
AMPLITUDE_CONTRAST = 0.1
NOISE_PER_SIGNAL = 5.0
"""Standard deviation of the noise over that of the particles; a particle is just seen at a glance."""


def make_sample(
    count: int, *, seed: int = 0, shape_yx: tuple[int, int] = SHAPE_YX, diameter_angstrom: float = DIAMETER_ANGSTROM
) -> list[tuple[Micrograph, Picks]]:
    """Micrographs of lumpy globular particles under a contrast transfer function, with detector noise and an ice ramp.

    This is a stand-in that makes something to look at in a second; it is no physical simulation.

    Returns
    -------
    The micrographs, each with the true centres of its particles
    """
    generator = np.random.default_rng(seed)
    return [_make_one(f"sample_{index + 1:02d}.mrc", generator, shape_yx, diameter_angstrom) for index in range(count)]


def write_sample(folder: Path, count: int = 4, *, seed: int = 0) -> None:
    """Write `folder`/micrographs/*.mrc and their true centres as `folder`/truth/*.csv."""
    from cryopick.io.coordinates.csv import write_csv
    from cryopick.io.images.micrographs import write_micrograph

    for micrograph, truth in make_sample(count, seed=seed):
        path = folder / "micrographs" / micrograph.name
        write_micrograph(path, micrograph)
        write_csv((folder / "truth" / micrograph.name).with_suffix(".csv"), [truth])


def _make_one(
    name: str, generator: np.random.Generator, shape_yx: tuple[int, int], diameter_angstrom: float
) -> tuple[Micrograph, Picks]:
    diameter_px = diameter_angstrom / PIXEL_SIZE_ANGSTROM
    xy_px = _scatter(generator, shape_yx, gap_px=1.05 * diameter_px)
    density = np.zeros(shape_yx)
    for x, y in xy_px:
        _add_particle(density, x, y, diameter_px, generator)
    defocus_angstrom = generator.uniform(12_000, 22_000)
    image = -_through_microscope(density, defocus_angstrom)
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]] / max(shape_yx)
    ramp = 0.6 * np.hypot(x - generator.uniform(), y - generator.uniform())
    image = image / max(float(image.std()), 1e-9) + ramp + NOISE_PER_SIGNAL * generator.standard_normal(shape_yx)
    micrograph = Micrograph(image.astype(np.float32), name=name, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    truth = Picks(
        xy_px=xy_px,
        diameter_px=np.full(len(xy_px), diameter_px, np.float32),
        micrograph_name=name,
        shape_yx=shape_yx,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
    )
    return micrograph, truth


def _scatter(generator: np.random.Generator, shape_yx: tuple[int, int], *, gap_px: float) -> NDArray[np.float64]:
    """(n, 2) centres at random, no two nearer than `gap_px`, none nearer than half of it to the edge."""
    height, width = shape_yx
    wanted = int(0.35 * height * width / gap_px**2)
    placed: list[NDArray[np.float64]] = []
    for _ in range(30 * wanted):
        spot = generator.uniform(gap_px / 2, np.array([width, height]) - gap_px / 2)
        if len(placed) < wanted and all(np.hypot(*(spot - other)) > gap_px for other in placed):
            placed.append(spot)
    return np.array(placed).reshape(-1, 2)


def _add_particle(
    density: NDArray[np.float64], x: float, y: float, diameter_px: float, generator: np.random.Generator
) -> None:
    """Add a ball of radius 0.45 diameters, projected, plus ten lumps inside it, which differ between particles."""
    radius = 0.45 * diameter_px
    top, left = max(int(y - radius) - 1, 0), max(int(x - radius) - 1, 0)
    window = density[top : int(y + radius) + 2, left : int(x + radius) + 2]
    rows, columns = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]]
    window += 2 * np.sqrt(np.maximum(radius**2 - (columns - x) ** 2 - (rows - y) ** 2, 0)) / radius
    for angle, distance in zip(generator.uniform(0, 2 * np.pi, 10), np.sqrt(generator.uniform(0, 1, 10)), strict=True):
        lump_x, lump_y = x + 0.7 * radius * distance * np.cos(angle), y + 0.7 * radius * distance * np.sin(angle)
        window += np.exp(-((columns - lump_x) ** 2 + (rows - lump_y) ** 2) / (2 * (0.14 * radius) ** 2))


def _through_microscope(density: NDArray[np.float64], defocus_angstrom: float) -> NDArray[np.float64]:
    """Multiply the transform by the contrast transfer function of a 300 kV microscope and an envelope.

    The phase is that of J. Rohou & N. Grigorieff, J. Struct. Biol. 192 (2015) 216-221, eq. 2, without astigmatism;
    the sign is chosen so that density stays positive at low resolution.
    """
    frequency_y = np.fft.fftfreq(density.shape[0], PIXEL_SIZE_ANGSTROM)[:, None]
    frequency_x = np.fft.rfftfreq(density.shape[1], PIXEL_SIZE_ANGSTROM)[None, :]
    squared = frequency_x**2 + frequency_y**2  # 1/Å²
    phase = np.pi * ELECTRON_WAVELENGTH_ANGSTROM * squared * (
        defocus_angstrom - 0.5 * ELECTRON_WAVELENGTH_ANGSTROM**2 * squared * SPHERICAL_ABERRATION_ANGSTROM
    ) + np.arcsin(AMPLITUDE_CONTRAST)  # fmt: skip
    transfer = np.sin(phase) * np.exp(-120 * squared / 4)
    return np.fft.irfft2(np.fft.rfft2(density) * transfer, s=density.shape)


def main(arguments: Sequence[str]) -> None:
    """`python -m cryopick.simulation.sample FOLDER`: write the sample there."""
    write_sample(Path(arguments[0] if arguments else "demo"))


if __name__ == "__main__":
    main(sys.argv[1:])
