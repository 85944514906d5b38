"""Whether particles that stand out are taken for junk: recall and rejections `on junk` against contrast.

    python benchmarks/contrast_range.py

Nearly noise-free simulated micrographs of several proteins get white noise up to a signal-to-noise ratio of a pixel
(variances), and, from the least noisy one on, noise of 1, 2 and 3 times the deviation of the image. `general`'s network
looks at the true diameter; candidates from a score of 0.3 on count. Prints a table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.heatmap.diameter import WORKING_FACTOR
from cryopick.heatmap.model import HeatmapModel, load_model, picks_at_scale
from cryopick.runs.one import junk_mask
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.recipe import named_recipe
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.types import Micrograph

PROTEINS = (
    ("ring", 130.0, 2.6),
    ("barrel", 300.0, 4.0),
    ("globular", 150.0, 3.0),
    ("assembly", 220.0, 4.4),
    ("flexible", 160.0, 3.2),
    ("shell", 280.0, 5.6),
)
"""Family, diameter and pixel size in Å."""
SIDE_PX = 768
SNR = (np.inf, 10.0, 2.0, 1.0, 0.5, 0.2)
ADDED = (1.0, 2.0, 3.0)
SCORE = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=4242)
    seed = parser.parse_args().seed
    model = load_model(None)
    rows = [(f"SNR {snr:g}", 1 / np.sqrt(snr)) for snr in SNR] + [(f"{times:g} deviations", times) for times in ADDED]
    print("| protein | " + " | ".join(name for name, _ in rows) + " |\n|---|" + "---|" * len(rows))
    for number, (family, diameter, pixel_size) in enumerate(PROTEINS):
        simulated = micrograph(seed, number, family, diameter, pixel_size)
        cells = ["{:.3f} / {:.3f}".format(*measured(model, simulated, times)) for _, times in rows]
        print(f"| {family} | " + " | ".join(cells) + " |", flush=True)
    print("\nrecall / share of true particles rejected on junk")


def micrograph(seed: int, number: int, family: str, diameter: float, pixel_size: float) -> SimulatedMicrograph:
    rng = np.random.default_rng([seed, number])
    volume = random_protein(rng, diameter_angstrom=diameter, family=family, voxel_size_angstrom=pixel_size)
    imager = SpecimenImager(Specimen(volume, diameter), pixel_size)
    recipe = replace(named_recipe("noise-light"), shape_yx=(SIDE_PX, SIDE_PX), pixel_size_angstrom=pixel_size)
    return simulate_micrograph(recipe, seed + number, imagers=[imager])


def measured(model: HeatmapModel, simulated: SimulatedMicrograph, times: float) -> tuple[float, float]:
    """Recall, and the share of true particles of which a candidate is rejected on junk and none is kept."""
    clean = simulated.micrograph.pixels
    noise = np.random.default_rng(1).standard_normal(clean.shape, dtype=np.float32)
    pixels = clean + np.float32(times * clean.std()) * noise
    diameter_px = float(simulated.diameter_px[0])
    found = picks_at_scale(model, Micrograph(pixels), diameter_px=WORKING_FACTOR * diameter_px)
    found = replace(found, diameter_px=np.full(len(found), diameter_px, np.float32))
    truth = simulated.xy_px[simulated.is_pickable]
    hits = []
    for mask in (junk_mask(found), None):
        kept = select(found, SelectionSettings(), threshold=SCORE, junk_mask=mask).kept()
        near = cKDTree(kept.xy_px).query(truth)[0] <= diameter_px / 4 if len(kept) else np.zeros(len(truth), bool)
        hits.append(near)
    return float(hits[0].mean()), float((hits[1] & ~hits[0]).mean())


if __name__ == "__main__":
    main()
