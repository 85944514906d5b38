"""Draw the latent space of a simulated micrograph for the page on Cryo-EMMAE.

python docs/make_cryoemmae_picture.py docs/images/cryoemmae.jpg
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.pickers.cryoemmae.picker import CryoEmmaePicker
from cryopick.pickers.survey import NOTHING_SEEN
from cryopick.runs.report.pictures import overview_jpeg
from cryopick.simulation.suite import suite_sets

MAPS = ("latent component 1", "latent component 2", "latent clusters", "particle evidence")


def draw(target: Path, *, family: str = "barrel") -> None:
    """The micrograph with its picks, and four maps, side by side."""
    import cv2

    one = next(each for each in suite_sets(levels=("easy",)) if each.protein.family == family)
    simulated = next(one.micrographs())
    size = one.protein.diameter_angstrom
    picker = CryoEmmaePicker(diameter=Length(size, size, "A"))
    picks = picker.pick(simulated.micrograph)
    kept = select(picks, SelectionSettings(), threshold=picker.choose_threshold(picks.score, NOTHING_SEEN)).kept()
    picture = cv2.imdecode(np.frombuffer(overview_jpeg(simulated.micrograph.pixels), np.uint8), cv2.IMREAD_GRAYSCALE)
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.3), constrained_layout=True)
    scale = picture.shape[1] / simulated.micrograph.shape_yx[1]
    axes[0].imshow(picture, cmap="gray")
    for x, y in kept.xy_px * scale:
        radius = 0.5 * size / one.protein.pixel_size_angstrom * scale
        axes[0].add_patch(plt.Circle((x, y), radius, fill=False, color="lime", linewidth=0.8))
    axes[0].set_title(f"{len(kept)} picks")
    for axis, name in zip(axes[1:], MAPS, strict=True):
        low, high = np.percentile(picks.maps[name], (1, 99.5))
        axis.imshow(picks.maps[name], cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
        axis.set_title(name)
    for axis in axes:
        axis.set_axis_off()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=80, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
