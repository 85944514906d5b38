"""Picks of every picker on two small images, through the public names alone, so that any version can make them.

The record was made with the code of before the house of packages (commit 49cbac3):

    python tests/support/picks_on_record.py images FOLDER    # with this version: the images as .npy
    python tests/support/picks_on_record.py record FOLDER tests/pickers/same_picks.json    # with that version
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import cryopick

PIXEL_SIZE_ANGSTROM = 2.0
MOST_KEPT = 80
"""Best picks of an image that go on record."""
DISC_PX = 70
"""Diameter of the disc that `template` looks for: that of the particles of the demo sample."""

SETTINGS: dict[str, dict[str, Any]] = {
    "autocryopicker": {},
    "blob": {"diameter": "140A"},
    "consensus": {"precision": "float32"},
    "cryoemmae": {"precision": "float32"},
    "cryosegnet": {"precision": "float32"},
    "cryotransformer": {"precision": "float32"},
    "deepcryopicker": {"steps": 30},
    "general": {"precision": "float32"},
    "segmentation-crf": {"precision": "float32"},
    "supercryopicker": {},
    "template": {"rotation_step_deg": 90.0, "references_pixel_size_angstrom": PIXEL_SIZE_ANGSTROM},
}
"""What each picker is given; arithmetic in float32 is nearly the same on every CPU."""


def images() -> dict[str, np.ndarray]:
    """The first micrograph of the demo sample, and a well exposed simulated micrograph of particles 130 Å wide."""
    from dataclasses import replace

    from cryopick.simulation.recipe import named_recipe
    from cryopick.simulation.sample import make_sample
    from cryopick.simulation.series import SimulationSettings, simulate_one

    ((sample, _),) = make_sample(1)
    clean = named_recipe("clean")
    recipe = replace(
        clean,
        shape_yx=(512, 640),
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        layout=replace(clean.layout, coverage=(0.25, 0.25), spacing_diameters=(1.2, 1.2)),
        detector=replace(clean.detector, dose_e_per_angstrom2=(150.0, 150.0)),
    )
    simulated = simulate_one(SimulationSettings(seed=3, recipe=recipe, diameter_angstrom=(130.0, 130.0)), 0)
    return {"sample": sample.pixels, "simulated": simulated.micrograph.pixels}


def write_reference(folder: Path) -> Path:
    """A bright disc as the reference of `template`."""
    y, x = np.mgrid[:96, :96] - 48
    path = folder / "disc.mrc"
    pixels = (np.hypot(x, y) <= DISC_PX / 2).astype(np.float32)
    cryopick.write_micrograph(path, cryopick.Micrograph(pixels, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM))
    return path.rename(folder / "disc.mrcs")


def picks_of(picker: str, image: str, folder: Path) -> dict[str, Any]:
    """How many candidates there are and how many are kept; the best of these as x, y, score.

    The diameter is measured on the sample, where the picker can, and given for the simulated micrograph.
    """
    pixels = np.load(folder / f"{image}.npy")
    settings = {**SETTINGS[picker], **({"diameter": "130A"} if image == "simulated" else {})}
    if picker == "template":
        settings["references"] = folder / "disc.mrcs"
    try:
        picks = cryopick.pick(pixels, picker, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, **settings)
    except Exception as error:
        return {"candidates": 0, "kept": 0, "best": [], "error": f"{type(error).__name__}: {error}"}
    kept = picks.kept()
    rows = [
        [round(float(x), 3), round(float(y), 3), round(float(score), 5)]
        for (x, y), score in zip(kept.xy_px[:MOST_KEPT], kept.score[:MOST_KEPT], strict=True)
    ]
    return {"candidates": len(picks), "kept": len(kept), "best": rows}


def main(arguments: list[str]) -> None:
    what, folder = arguments[0], Path(arguments[1])
    if what == "images":
        folder.mkdir(parents=True, exist_ok=True)
        write_reference(folder)
        for name, pixels in images().items():
            np.save(folder / f"{name}.npy", pixels)
        return
    import time

    record: dict[str, Any] = {}
    for picker in SETTINGS:
        record[picker] = {}
        for path in sorted(folder.glob("*.npy")):
            start = time.process_time()
            found = record[picker][path.stem] = picks_of(picker, path.stem, folder)
            print(  # noqa: T201  # a script
                picker,
                path.stem,
                found["candidates"],
                found["kept"],
                f"{time.process_time() - start:.1f} s",
                flush=True,
            )
    text = json.dumps(record).replace('"best": [[', '"best": [\n[').replace("]]", "]\n]").replace("], [", "],\n[")
    Path(arguments[2]).write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
