"""What a facility's service does with each micrograph as it comes: call cryopick, read one line, and know everything.

    cryopick pick micrographs/x.mrc -o job --add --root micrographs --picker blob --diameter 140A --json

and, when lists and a report are wanted:

    cryopick pick micrographs -o job --picker blob --diameter 140A --json

Run it with: python examples/facility_service.py [FOLDER]
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import cryopick
from cryopick.simulation.sample import write_sample

CRYOPICK = [sys.executable, "-P", "-m", "cryopick.cli.main"]  # or just ["cryopick"]


OPTIONS = ["--picker", "blob", "--diameter", "140A", "--threshold", "5", "--workers", "1", "--json"]


def events_of(*words: str | Path) -> list[dict]:
    called = [*CRYOPICK, "pick", *map(str, words), *OPTIONS]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def pick_one(micrograph: Path, job: Path) -> dict:
    """The event of this micrograph; where there is none, that of the error. No prose is parsed."""
    events = events_of(micrograph, "-o", job, "--add", "--root", micrograph.parent)
    ours = [one for one in events if one["event"] == "micrograph" and one["path"] == str(micrograph.absolute())]
    return ours[0] if ours else events[-1]  # the last one says the kind of error, and `exit_code`


def diameters_px(candidates_file: str, threshold: float) -> list[float]:
    """Of each kept pick; its place, score and class stand in the same table."""
    with open(candidates_file, newline="") as table:
        rows = list(csv.DictReader(table))
    return [float(one["diameter_px"]) for one in rows if not one["reason"] and float(one["score"]) >= threshold]


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "facility_example")
write_sample(folder, count=2)  # your own micrographs come here, one after the other
micrographs = sorted((folder / "micrographs").glob("*.mrc"))
blank = cryopick.Micrograph(np.ones((512, 512), np.float32), pixel_size_angstrom=2.0)
cryopick.write_micrograph(folder / "micrographs" / "nothing_on_it.mrc", blank)
(folder / "micrographs" / "no_image.mrc").write_text("half a file")

for name in [*(path.name for path in micrographs), "nothing_on_it.mrc", "no_image.mrc", "not_there.mrc"]:
    told = pick_one(folder / "micrographs" / name, folder / "External" / "job012")
    if told["event"] == "error":
        print(f"{name}: {told['kind']} error, exit code {told['exit_code']}: {told['message'][:60]}")
    elif told["status"] == "failed":
        print(f"{name}: cannot be picked: {told['error'][:60]}")
    else:
        sizes = diameters_px(told["candidates_file"], told["threshold"])
        star = Path(told["picks_file"]).read_text()  # for RELION; an empty table where there is no particle
        assert told["count"] == sum(row[:1].isdigit() for row in star.splitlines()) == len(sizes)
        print(f"{name}: {told['count']} particles, diameter {told['diameter_angstrom']} Å, {told['seconds']:.1f} s")

# the lists for RELION and cryoSPARC, and the report; what is finished is not picked again
summary = events_of(folder / "micrographs", "-o", folder / "External" / "job012")[-1]
failed = len(summary["failed"])
print(f"{summary['particles']} particles in {summary['micrographs']} micrographs, {failed} of which cannot be picked")
