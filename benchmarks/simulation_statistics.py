"""Power spectra and radial particle profiles of simulated micrographs next to real ones, as one picture.

python benchmarks/simulation_statistics.py --real ../shared/data/real --output docs/images/simulation_statistics.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopick.data.labels import read_labels
from cryopick.io.images.micrographs import read_micrograph
from cryopick.processing.scale import resample
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.recipe import Recipe
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein

WORKING_PX = 20.0
"""Pixels per particle diameter at which all are compared."""
REACH = 1.5
"""Profiles reach this many diameters from the centre."""
IMAGE_SUFFIXES = (".mrc", ".png", ".jpg", ".tif")


@dataclass(frozen=True)
class Statistics:
    """Curves of one micrograph; the profile is NaN without particles."""

    name: str
    frequency: NDArray[np.float64]  # cycles per diameter
    power: NDArray[np.float64]  # 1 on average between 1.5 and 3 cycles per diameter
    radius: NDArray[np.float64]  # diameters
    profile: NDArray[np.float64]  # standard deviations of the image (robust)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, required=True, help="folder of labelled sets")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    real = [one for folder in sorted(arguments.real.iterdir()) if folder.is_dir() for one in of_set(folder)]
    simulated = [of_simulation(arguments.seed, index) for index in range(arguments.count)]
    draw(arguments.output, real, simulated)
    report(real, simulated)


def of_set(folder: Path) -> list[Statistics]:
    found = []
    labels = read_labels(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        label = next(one for name, one in labels.items() if Path(name).stem == path.stem or name == path.stem)
        pixels = read_micrograph(path).pixels
        edge = round(0.03 * min(pixels.shape))  # replicated borders would dominate the spectrum
        pixels = pixels[edge:-edge, edge:-edge]
        found.append(measure(folder.name, pixels, label.xy_px[~label.is_uncertain] - edge, label.diameter_px or 20.0))
    return found


def of_simulation(seed: int, index: int) -> Statistics:
    rng = np.random.default_rng([seed, index])
    diameter = float(np.exp(rng.uniform(np.log(90), np.log(350))))
    pixel_size = diameter / 60
    volume = random_protein(rng, diameter_angstrom=diameter, voxel_size_angstrom=pixel_size)
    recipe = replace(Recipe(), shape_yx=(960, 960), pixel_size_angstrom=pixel_size)
    imager = SpecimenImager(Specimen(volume, diameter), pixel_size)
    simulated = simulate_micrograph(recipe, seed, imagers=[imager], index=index, workers=2)
    return measure("simulated", simulated.micrograph.pixels, simulated.xy_px[simulated.is_pickable], 60.0)


def measure(name: str, pixels: NDArray[np.float32], xy_px: NDArray[np.float64], diameter_px: float) -> Statistics:
    working, scale = resample(pixels, factor=WORKING_PX / diameter_px)
    centre = np.median(working)
    spread = 1.4826 * np.median(np.abs(working - centre))
    working = (working - centre) / max(float(spread), 1e-9)
    frequency, power = spectrum(working)
    middle = (frequency > 1.5) & (frequency < 3)
    radius, profile = radial_profile(working, scale.to_working_xy(xy_px))
    return Statistics(name, frequency, power / power[middle].mean(), radius, profile)


def spectrum(
    image: NDArray[np.float32], *, side: int = 128, bins: int = 32
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequency in cycles per diameter, and radially averaged power of half-overlapping windowed tiles."""
    side = min(side, *image.shape)
    window = np.outer(np.hanning(side), np.hanning(side))
    total, count = np.zeros((side, side)), 0
    for top in range(0, image.shape[0] - side + 1, side // 2):
        for left in range(0, image.shape[1] - side + 1, side // 2):
            tile = image[top : top + side, left : left + side].astype(np.float64)
            total += np.abs(np.fft.fft2((tile - tile.mean()) * window)) ** 2
            count += 1
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    ring = np.minimum((frequency / 0.5 * bins).astype(int), bins)
    power = (
        np.bincount(ring.ravel(), total.ravel(), bins + 1)[:bins] / np.bincount(ring.ravel(), minlength=bins + 1)[:bins]
    )
    return (np.arange(bins) + 0.5) / bins * 0.5 * WORKING_PX, power / max(count, 1)


def radial_profile(
    image: NDArray[np.float32], xy_px: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over particles of the radial average around their centres."""
    reach, bins = int(REACH * WORKING_PX), 30
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    ring = np.minimum((np.hypot(y, x) / reach * bins).astype(int), bins)
    count = np.bincount(ring.ravel(), minlength=bins + 1)
    profiles = []
    for column, row in np.rint(xy_px).astype(int):
        if reach <= column < image.shape[1] - reach and reach <= row < image.shape[0] - reach:
            box = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
            profiles.append(np.bincount(ring.ravel(), box.ravel(), bins + 1) / count)
    radius = (np.arange(bins) + 0.5) / bins * REACH
    return radius, np.mean(profiles, axis=0)[:bins] if profiles else np.full(bins, np.nan)


def draw(path: Path, real: list[Statistics], simulated: list[Statistics]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    powers = np.stack([one.power for one in simulated])
    profiles = np.stack([one.profile for one in simulated])
    profiles = profiles[np.isfinite(profiles).all(axis=1)]
    for axes, x, curves in ((left, simulated[0].frequency, powers), (right, simulated[0].radius, profiles)):
        for curve in curves:
            axes.plot(x, curve, color="0.75", linewidth=0.5)
        low, high = np.percentile(curves, [5, 95], axis=0)
        axes.fill_between(x, low, high, color="tab:blue", alpha=0.2, label="simulated, 5 to 95 %")
        axes.plot(x, np.median(curves, axis=0), color="tab:blue", label="simulated, median")
    colours = dict(
        zip(sorted({one.name for one in real}), ("tab:orange", "tab:red", "tab:green", "tab:purple"), strict=False)
    )
    for one in real:
        for axes, x, curve in ((left, one.frequency, one.power), (right, one.radius, one.profile)):
            names = axes.get_legend_handles_labels()[1]
            label = one.name if one.name not in names else None
            axes.plot(x, curve, color=colours[one.name], linewidth=1.2, label=label)
    left.set(yscale="log", xlabel="cycles per particle diameter", ylabel="power, 1 between 1.5 and 3 cycles")
    right.set(xlabel="distance from the centre, diameters", ylabel="brightness, robust standard deviations")
    left.set_ylim(1e-6, 1e3)
    right.set_ylim(-5, 2)
    left.legend()
    figure.savefig(path, dpi=110)
    print(path)


def report(real: list[Statistics], simulated: list[Statistics]) -> None:
    """How much of the real curves lies within the simulated range."""
    powers = np.log10(np.stack([one.power for one in simulated]))
    profiles = np.stack([one.profile for one in simulated])
    profiles = profiles[np.isfinite(profiles).all(axis=1)]
    print("set          share of real curve inside the simulated 2 to 98 % range: power, profile")
    for name in sorted({one.name for one in real}):
        shares = []
        for curves, values in (
            (powers, [np.log10(one.power) for one in real if one.name == name]),
            (profiles, [one.profile for one in real if one.name == name and np.isfinite(one.profile).all()]),
        ):
            low, high = np.percentile(curves, [2, 98], axis=0)
            shares.append(float(np.mean([(low <= v) & (v <= high) for v in values])) if values else float("nan"))
        print(f"{name:12s} {shares[0]:.2f} {shares[1]:.2f}")


if __name__ == "__main__":
    main()
