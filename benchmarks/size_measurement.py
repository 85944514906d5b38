"""Measuring the particle diameter: how far it is off, what it costs, and whether empty micrographs disturb it.

    python benchmarks/size_measurement.py suite              the fixed suite: error, against two meanings of size
    python benchmarks/size_measurement.py suite --seed 77123 the same with other proteins, for choosing
    python benchmarks/size_measurement.py speed              core seconds of six micrographs of 4096 x 4096
    python benchmarks/size_measurement.py mixed              one filled micrograph among 5 and among 20 empty ones
    python benchmarks/size_measurement.py noise --seed 77123 what noise and dirt explain at some size, and particles

Run in two checkouts, it compares them: only names that version 0.2 has are needed, but for `mixed` and `noise`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from cryopick.heatmap.diameter import estimate_diameter
from cryopick.heatmap.model import load_model
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.simulation.suite import SNR_OF_LEVEL, SUITE_SEED, SuiteSet, suite_sets
from cryopick.types import Micrograph, Volume

OUTLINE_LEVEL = 0.2
"""Of a view's peak: where a person sees its border."""
VIEWS, DIRECTIONS = 24, 24
OTHER_SIZE = (1.3, 0.8, 0.85, 1.2, 0.9, 1.25, 0.8, 1.15)
"""Diameters of the other proteins over those of the suite."""


def imager_of(one: SuiteSet, seed: int) -> SpecimenImager:
    """The suite's protein for its own seed, else another one of the same family and of another size."""
    protein = one.protein
    volume = random_protein(
        np.random.default_rng([seed, one.number]),
        diameter_angstrom=protein.diameter_angstrom,
        family=protein.family,
        voxel_size_angstrom=protein.pixel_size_angstrom,
    )
    return SpecimenImager(Specimen(volume, protein.diameter_angstrom), protein.pixel_size_angstrom)


def sets_of(seed: int, levels: tuple[str, ...]) -> list[SuiteSet]:
    sets = suite_sets(levels=levels)
    if seed == SUITE_SEED:
        return sets
    return [
        replace(
            one,
            protein=replace(
                one.protein, diameter_angstrom=round(one.protein.diameter_angstrom * OTHER_SIZE[one.number])
            ),
        )
        for one in sets
    ]


def micrographs_of(
    one: SuiteSet, imager: SpecimenImager, seed: int, *, count: int, coverage: tuple[float, float] | None = None
) -> list[Micrograph]:
    recipe = (
        one.recipe if coverage is None else replace(one.recipe, layout=replace(one.recipe.layout, coverage=coverage))
    )
    return [
        simulate_micrograph(
            recipe, seed + one.number, imagers=[imager], index=index, target_snr=SNR_OF_LEVEL[one.level],
            name=f"{one.name}-{index + 1}" + ("" if coverage is None else "-empty"),
        ).micrograph
        for index in range(count)
    ]  # fmt: skip


def seen_extent(volume: Volume, diameter_angstrom: float) -> float:
    """Width of the outline, over all views and directions in the plane, Å: what a person measures on the screen."""
    smooth = gaussian_filter(volume.density, 0.04 * diameter_angstrom / volume.voxel_size_angstrom)
    step = max(1, int(diameter_angstrom / volume.voxel_size_angstrom / 40))
    density, pixel = smooth[::step, ::step, ::step], volume.voxel_size_angstrom * step
    middle = np.full(3, (density.shape[0] - 1) / 2)
    widths = []
    for turn in Rotation.random(VIEWS, random_state=1).as_matrix():
        view = affine_transform(density, turn, offset=middle - turn @ middle, order=1).sum(0)
        y, x = np.nonzero(view > OUTLINE_LEVEL * view.max())
        angles = np.linspace(0, np.pi, DIRECTIONS, endpoint=False)
        widths += [np.ptp(x * np.cos(angle) + y * np.sin(angle)) + 1 for angle in angles]
    return float(np.mean(widths)) * pixel


def measured(micrographs: Sequence[Micrograph]) -> tuple[float, float]:
    """Measured diameter in Å (NaN where there is none), and core seconds."""
    start = time.process_time()
    found = estimate_diameter(MODEL, micrographs)
    return (float("nan") if found is None else found.diameter.middle), time.process_time() - start


def suite(seed: int, levels: tuple[str, ...]) -> None:
    ratios: dict[str, list[tuple[float, float]]] = {}
    seconds = []
    for one in sets_of(seed, levels):
        imager = imager_of(one, seed)
        largest = one.protein.diameter_angstrom
        size, cost = measured(micrographs_of(one, imager, seed, count=3 if seed == SUITE_SEED else 2))
        seen = seen_extent(imager.specimen.volume, largest)
        ratios.setdefault(one.level, []).append((size / largest, size / seen))
        seconds.append(cost)
        print(
            f"{one.name}: {size:.0f} A, of largest extent {size / largest:.2f}, of outline {size / seen:.2f}",
            flush=True,
        )
    for level, both in [*ratios.items(), ("all", [pair for each in ratios.values() for pair in each])]:
        log: NDArray[np.float64] = np.log(np.array(both))
        for column, meaning in enumerate(("largest extent", "mean width of the outline")):
            error = log[:, column]
            rms, mean, deviation = np.sqrt(np.nanmean(error**2)), np.nanmean(error), np.nanstd(error)
            print(f"{level}: log ratio to {meaning}: rms {rms:.3f}, mean {mean:+.3f}, deviation {deviation:.3f}")
        print(f"{level}: not measured {np.isnan(log[:, 0]).sum()} of {len(log)}")
    print(f"core seconds per set: {np.mean(seconds):.2f}")


def speed() -> None:
    """Micrographs of 1024 x 1024 continued by their mirror images; all six are looked at, as a run does."""
    one = next(one for one in suite_sets(levels=("medium",)) if one.protein.family == "ring")
    six = []
    for small in micrographs_of(one, one.imager(), SUITE_SEED, count=6):
        two = np.concatenate([small.pixels, small.pixels[:, ::-1]], axis=1)
        four = np.concatenate([two, two[::-1]])
        six.append(replace(small, pixels=np.tile(four, (2, 2))))
    for _ in range(2):
        fresh = [replace(each) for each in six]
        start = time.process_time()
        try:
            from cryopick.heatmap.diameter import holding_particles
        except ImportError:  # checkouts before the sample was chosen
            chosen = fresh
        else:
            chosen = [fresh[index] for index in holding_particles(MODEL, fresh, None)]
        found = estimate_diameter(MODEL, chosen)
        print(f"{time.process_time() - start:.2f} core seconds for six of {six[0].shape_yx}: {found}")


def mixed(seed: int, levels: tuple[str, ...]) -> None:
    from cryopick.heatmap.diameter import holding_particles

    for one in sets_of(seed, levels):
        imager = imager_of(one, seed)
        filled = micrographs_of(one, imager, seed, count=1)[0]
        empty = micrographs_of(one, imager, seed + 1, count=20, coverage=(0.0, 0.0))
        alone, _ = measured([filled])
        text = []
        for count in (5, 20):
            session = [*empty[: count // 2], filled, *empty[count // 2 : count]]
            held = holding_particles(MODEL, session, None)
            size, _ = measured(session)
            text.append(f"{size / one.protein.diameter_angstrom:.2f} among {count} empty (asked: {held})")
        print(f"{one.name}: alone {alone / one.protein.diameter_angstrom:.2f}, {', '.join(text)}", flush=True)


def noise(seed: int, levels: tuple[str, ...]) -> None:
    """The tally for `NOISE_SHARE`: the largest share that one size explains, without particles and with them."""
    from cryopick.heatmap.size_votes import NOISE_SHARE, largest_share, votes_of

    shares: dict[str, list[float]] = {"empty": [], "filled": []}
    for one in sets_of(seed, levels):
        imager = imager_of(one, seed)
        kinds = {
            "empty": micrographs_of(one, imager, seed + 1, count=1, coverage=(0.0, 0.0)),
            "filled": micrographs_of(one, imager, seed, count=4),
        }
        for kind, micrographs in kinds.items():
            each = [largest_share(votes_of(MODEL, micrograph)) for micrograph in micrographs]
            shares[kind] += each
            print(f"{one.name}: {kind}: {', '.join(f'{share:.3f}' for share in each)}", flush=True)
    rng = np.random.default_rng(seed)
    white = [Micrograph(rng.normal(size=(1024, 1024)).astype(np.float32)) for _ in range(2)]
    shares["empty"] += [largest_share(votes_of(MODEL, micrograph)) for micrograph in white]
    above = sum(share > NOISE_SHARE for share in shares["empty"])
    below = sum(share <= NOISE_SHARE for share in shares["filled"])
    print(f"above {NOISE_SHARE}: {above} of {len(shares['empty'])} without particles (two of them white noise)")
    print(f"not above it: {below} of {len(shares['filled'])} with particles")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("suite", "speed", "mixed", "noise"))
    parser.add_argument("--seed", type=int, default=SUITE_SEED)
    parser.add_argument("--levels", nargs="+", default=list(SNR_OF_LEVEL))
    given = parser.parse_args()
    MODEL = load_model(None)
    if given.part == "suite":
        suite(given.seed, tuple(given.levels))
    elif given.part == "speed":
        speed()
    elif given.part == "mixed":
        mixed(given.seed, tuple(given.levels))
    else:
        noise(given.seed, tuple(given.levels))
