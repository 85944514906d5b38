"""Draw the picture of the README: simulated micrographs of clean ice, the picks of `general`, and the true centres.

python docs/make_picture.py docs/picture.jpg
"""

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import cryopick
from cryopick.simulation.recipe_words import recipe_with
from cryopick.simulation.series import SimulationSettings
from cryopick.workflows.simulate import simulate

SEEDS = (20, 27)
DIAMETER_ANGSTROM = (110.0, 150.0)
PIXEL_SIZE_ANGSTROM = 2.0


def simulated(seed: int, folder: Path) -> tuple[cryopick.Micrograph, cryopick.Picks]:
    """One micrograph of a procedural protein, and its true centres."""
    recipe = recipe_with(
        "clean", defocus="1.5-2.2um", dose="45", size="800x1100", pixel_size_angstrom=PIXEL_SIZE_ANGSTROM
    )
    settings = SimulationSettings(
        structures=("random",), proteins=1, diameter_angstrom=DIAMETER_ANGSTROM, seed=seed, recipe=recipe
    )
    simulate(folder, settings, count=1)
    (path,) = (folder / "micrographs").glob("*.mrc")
    (truth,) = cryopick.read_picks(folder / "micrographs" / f"{path.stem}.csv").values()
    return cryopick.read_micrograph(path), truth


def draw(target: Path) -> None:
    """Two columns, one row per seed: the micrograph, and the same with circles and true centres."""
    figure, axes = plt.subplots(len(SEEDS), 2, figsize=(10, 3.75 * len(SEEDS)), layout="constrained")
    for row, seed in zip(axes, SEEDS, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            micrograph, truth = simulated(seed, Path(folder))
        diameter_px = float(np.median(truth.diameter_px))
        kept = cryopick.pick(micrograph, diameter=f"{diameter_px:g}px").kept()
        low, high = np.percentile(micrograph.pixels, (1, 99))
        for panel in row:
            panel.imshow(micrograph.pixels, cmap="gray", vmin=low, vmax=high, interpolation="antialiased")
            panel.set_axis_off()
        for x, y in kept.xy_px:
            row[1].add_patch(plt.Circle((x, y), diameter_px / 2, fill=False, color="#17c964", linewidth=1.2))
        row[1].scatter(*truth.xy_px.T, s=5, color="#3b82f6")
        row[1].set_xlim(row[0].get_xlim())
        row[1].set_ylim(row[0].get_ylim())
        print(f"seed {seed}: {len(kept)} picks, {len(truth)} particles, diameter {diameter_px:.0f} px")
    figure.savefig(target, dpi=90, pil_kwargs={"quality": 82})


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "picture.jpg"))
