"""Pick a folder of micrographs into a run folder, move the threshold, and score the result against known particles.

The same on the command line:

    cryopick pick micrographs/ -o run --picker blob --diameter 140A
    cryopick rethreshold run --threshold 6
    cryopick evaluate run --truth truth/ --diameter 140A

Run it with: python examples/pick_a_folder.py [FOLDER]
"""

import sys
from pathlib import Path

import cryopick
from cryopick.simulation.sample import write_sample

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "folder_example")
write_sample(folder, count=3)  # your own micrographs go here

summary = cryopick.pick(folder / "micrographs", "blob", output=folder / "run", diameter="140A")
print(f"{summary.particles} particles in {summary.micrographs} micrographs, box {summary.box_px} px suggested")

# Calling it again picks only what is missing: here nothing.
cryopick.pick(folder / "micrographs", "blob", output=folder / "run", diameter="140A")

# Every candidate was kept, so another threshold needs no second look at the micrographs.
stricter = cryopick.rethreshold(folder / "run", threshold=1.5 * summary.threshold)
print(f"{stricter.particles} particles with a score of {stricter.threshold:.3g} or better")
cryopick.rethreshold(folder / "run", threshold=None)  # and back

evaluation = cryopick.evaluate(folder / "run", folder / "truth", diameter="140A")
counts = evaluation.main.counts
print(f"precision {counts.precision:.2f}, recall {counts.recall:.2f} within {evaluation.main.tolerance:g} diameters")
print(f"look at {folder / 'run' / 'report.html'}")
