"""Contact sheets of simulated micrographs and crops, to be looked at.

python benchmarks/simulation_gallery.py --output docs/images
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cryopick.simulation.crops import CropGenerator
from cryopick.simulation.micrograph import SimulatedMicrograph
from cryopick.simulation.recipe import Recipe
from cryopick.simulation.series import SimulationSettings, simulate_one

COLUMNS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--side", type=int, default=2048, help="pixels of a micrograph")
    parser.add_argument("--pixel-size", type=float, default=2.2, help="Å")
    parser.add_argument("--crops", type=int, default=24)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    recipe = Recipe(shape_yx=(arguments.side, arguments.side), pixel_size_angstrom=arguments.pixel_size)
    settings = SimulationSettings(
        proteins=arguments.count, diameter_angstrom=(90.0, 400.0), seed=arguments.seed, recipe=recipe
    )
    plain, marked = [], []
    for index in range(arguments.count):
        simulated = simulate_one(settings, index, threads=2)
        image = shrunk(simulated.micrograph.pixels, side=320)
        plain.append(as_grey(image))
        marked.append(with_truth(image, simulated))
        conditions = simulated.conditions
        print(
            f"{index + 1:2d} particles {len(simulated.xy_px):4d} diameter {np.median(simulated.diameter_px):5.0f} px"
            if len(simulated.xy_px)
            else f"{index + 1:2d} empty",
            f"ideal SNR {np.median(simulated.snr):.1f}" if len(simulated.snr) else "",
            f"defocus {conditions.optics.defocus_um:.1f} um, ice {conditions.ice_angstrom:.0f} Å,",
            f"dose {conditions.dose_e_per_angstrom2:.0f}, dirt {conditions.dirt}",
            flush=True,
        )
    write_sheet(arguments.output / "simulated_micrographs.jpg", plain)
    write_sheet(arguments.output / "simulated_micrographs_truth.jpg", marked)

    generator = CropGenerator(seed=arguments.seed)
    crops = [generator.crop(index) for index in range(arguments.crops)]
    write_sheet(arguments.output / "simulated_crops.jpg", [as_grey(crop.image) for crop in crops])


def shrunk(pixels: NDArray[np.float32], *, side: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), dtype=np.float32)


def as_grey(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = np.percentile(image, [0.5, 99.5])
    return np.asarray(np.clip((image - low) / max(high - low, 1e-9) * 255, 0, 255), dtype=np.uint8)


def with_truth(image: NDArray[np.float32], simulated: SimulatedMicrograph) -> NDArray[np.uint8]:
    """Junk red, silhouettes of particles to be picked green, of the others blue."""
    colour = np.repeat(as_grey(image)[..., None], 3, axis=2)
    side = image.shape[0]
    instances = cv2.resize(simulated.instances.astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST)
    junk = cv2.resize(simulated.junk.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST) > 0
    pickable = np.isin(instances.astype(int), np.flatnonzero(simulated.is_pickable) + 1)
    for channel, mask in ((2, junk), (1, pickable), (0, (instances > 0) & ~pickable)):
        plane = colour[..., channel]
        plane[mask] = np.minimum(255, plane[mask] * 0.6 + 100).astype(np.uint8)
    return colour


def write_sheet(path: Path, tiles: list[NDArray[np.uint8]]) -> None:
    padded = [cv2.copyMakeBorder(tile, 0, 6, 0, 6, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for tile in tiles]
    while len(padded) % COLUMNS:
        padded.append(np.full_like(padded[0], 255))
    rows = [np.hstack(padded[first : first + COLUMNS]) for first in range(0, len(padded), COLUMNS)]
    cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 82])
    print(f"{path}: {len(tiles)} tiles")


if __name__ == "__main__":
    main()
