"""Pick particles from an image in memory, as in a notebook: choose a threshold, look, save.

Run it with: python examples/pick_an_array.py [OUTPUT_FOLDER]
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # draw without a display; leave this out in a notebook
import matplotlib.pyplot as plt

import cryopick
from cryopick.simulation.sample import make_sample

output = Path(sys.argv[1] if len(sys.argv) > 1 else "array_example")
output.mkdir(parents=True, exist_ok=True)

# One micrograph with known particles. Yours: cryopick.read_micrograph("x.mrc"), or any (rows, columns) array.
((micrograph, truth),) = make_sample(1)

picks = cryopick.pick(micrograph, "blob", diameter="140A")
kept = picks.kept()  # centres are (x, y) in pixels, (0, 0) is the centre of the first pixel, y grows with the rows
print(f"{len(picks)} candidates, {len(kept)} kept; the best at {kept.xy_px[0].round(1)}, score {kept.score[0]:.2f}")

# Every candidate says why it was not kept.
for reason in sorted(set(picks.reason[~picks.is_kept])):
    print(f"  {int((picks.reason == reason).sum()):4d} {reason}")

figure, axes = plt.subplots(figsize=(9, 7))
axes.imshow(micrograph.pixels, cmap="gray", vmin=-8, vmax=8)
axes.scatter(*kept.xy_px.T, s=900, facecolors="none", edgecolors="lime")
axes.set_axis_off()
figure.savefig(output / "picks.png", dpi=80, bbox_inches="tight")

cryopick.write_picks([kept], output / "sample_picks.star")
print(f"wrote {output / 'picks.png'} and {output / 'sample_picks.star'}; truth has {len(truth)} particles")
