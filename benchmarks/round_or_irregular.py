"""Judges `ROUND_QUARTER`, below which the circles of a run count as round particles: simulated sets, judged both ways.

    python benchmarks/round_or_irregular.py --output benchmarks/results

Three micrographs of 1024 x 1024 of each kind: barrels, hollow balls and discs, clear to faint, and long proteins of
Gaussian lobes. The diameter is measured, as a run without one does, and given. Told
are the quartile of circularity, and the examples chosen with circles taken for round and for irregular particles: how
many, how many of them lie within a quarter of a diameter of a particle, and how many of these have the right view. No
real micrograph has a say. Writes round_or_irregular.json and .md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from cryopick.evaluation.machine import describe_machine
from cryopick.geometry.units import Length
from cryopick.metrics.detection import match_picks
from cryopick.pickers.deepcryopicker.objects import IRREGULAR, known_size, working_image
from cryopick.pickers.deepcryopicker.self_labels import ROUND_QUARTER, label_images, quarter_of_circles
from cryopick.simulation.specimens.barrels import BarrelMicrograph
from cryopick.types import Micrograph
from sparse_barrels import draw_crowd, draw_look, draw_sparse_barrels

SIDE_PX, MICROGRAPHS, SCALE = 1024, 3, 0.5
COVERED = 0.35
"""Share of the area under balls, discs and proteins."""
SOFT = 0.03
"""Blur in diameters of a micrograph that was denoised."""

Draw = Callable[[], list[BarrelMicrograph]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    rows = []
    for name, draw in SETS.items():
        drawn = draw()
        for is_given in (False, True):
            rows.append({"set": name, "diameter": "given" if is_given else "measured", **judged(drawn, is_given)})
            print(rows[-1], flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    found = {"machine": str(describe_machine()), "threshold": ROUND_QUARTER, "rows": rows}
    (args.output / "round_or_irregular.json").write_text(json.dumps(found, indent=1) + "\n")
    (args.output / "round_or_irregular.md").write_text(as_markdown(found))


# ------------------------------------------------------------------------------------------------------------ drawing


def balls(seed: int, *, hole: float, noise: float) -> list[BarrelMicrograph]:
    """Crowded balls: rings where they are hollow, discs where `hole` is 0."""
    look = replace(
        draw_look(seed, scale=SCALE),
        is_ball=True, faintest=0.6, dirt=0.5, fragments=0.0, small=0.0, hole=hole, noise=noise,
    )  # fmt: skip
    count = int(COVERED * SIDE_PX**2 / (np.pi / 4 * look.ring_px**2))
    return [
        draw_sparse_barrels(look, seed=1000 * seed + i, side_px=SIDE_PX, count=count, spacing=1.02)
        for i in range(MICROGRAPHS)
    ]


def sparse(seed: int) -> list[BarrelMicrograph]:
    """Barrels at KLH's density."""
    look = draw_look(seed, scale=SCALE)
    return [draw_sparse_barrels(look, seed=1000 * seed + i, side_px=SIDE_PX) for i in range(MICROGRAPHS)]


def proteins(
    seed: int, *, lobes: int, axes: tuple[float, float, float], noise: float, diameter_px: float = 70.0
) -> list[BarrelMicrograph]:
    """Crowded proteins of Gaussian lobes, one kind, in all orientations, in white noise, denoised by a blur.

    Parameters
    ----------
    axes : of the ellipsoid that the lobes lie on, in particle radii over 1
    noise : standard deviation over the darkness of a particle
    """
    rng = np.random.default_rng([seed, 37])
    directions = rng.normal(size=(lobes, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    centres = directions * axes * rng.uniform(0.4, 0.75, lobes)[:, None]
    weights = rng.uniform(0.6, 1.0, lobes)
    count = int(COVERED * SIDE_PX**2 / (np.pi / 4 * diameter_px**2))
    drawn = []
    for index in range(MICROGRAPHS):
        xy = apart(rng, count, distance_px=1.02 * diameter_px)
        image = np.zeros((SIDE_PX, SIDE_PX))
        y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
        for place, turn in zip(xy, Rotation.random(count, random_state=rng).as_matrix(), strict=True):
            left, top = np.maximum(0, (place - diameter_px).astype(int))
            window = np.s_[top : top + int(2 * diameter_px), left : left + int(2 * diameter_px)]
            for (dx, dy, _), weight in zip(centres @ turn.T * diameter_px / 2, weights, strict=True):
                squared = (x[window] - place[0] - dx) ** 2 + (y[window] - place[1] - dy) ** 2
                image[window] -= weight * np.exp(-squared / (2 * (0.1 * diameter_px) ** 2))
        noisy = image + noise * rng.normal(size=image.shape)
        pixels = gaussian_filter(noisy, SOFT * diameter_px).astype(np.float32)
        view = np.full(count, IRREGULAR, np.int64)
        drawn.append(BarrelMicrograph(Micrograph(pixels, name=f"proteins{index}"), xy, view, diameter_px))
    return drawn


def apart(rng: np.random.Generator, count: int, *, distance_px: float) -> NDArray[np.float64]:
    """(count, 2) random places at least this far from each other."""
    xy = np.zeros((0, 2))
    while len(xy) < count:
        place = rng.uniform(0, SIDE_PX, 2)
        if not len(xy) or np.hypot(*(xy - place).T).min() >= distance_px:
            xy = np.vstack([xy, place])
    return xy


SETS: dict[str, Draw] = {
    "barrels, sparse": lambda: sparse(20),
    "barrels, crowded": lambda: draw_crowd(321, side_px=SIDE_PX, scale=SCALE),
    "barrels, crowded, other": lambda: draw_crowd(323, side_px=SIDE_PX, scale=SCALE),
    "rings, clear": lambda: balls(303, hole=0.65, noise=0.5),
    "rings": lambda: balls(304, hole=0.65, noise=1.2),
    "rings, faint": lambda: balls(305, hole=0.65, noise=2.2),
    "discs, clear": lambda: balls(300, hole=0.0, noise=0.5),
    "discs, faint": lambda: balls(302, hole=0.0, noise=2.2),
    "long, clear": lambda: proteins(401, lobes=4, axes=(1, 0.55, 0.55), noise=1.0),
}


# ----------------------------------------------------------------------------------------------------------- judging


def judged(drawn: Sequence[BarrelMicrograph], is_given: bool) -> dict[str, Any]:
    """Quartile, and examples chosen either way."""
    diameter_px = drawn[0].diameter_px
    size = known_size(
        [one.micrograph for one in drawn], Length(diameter_px, diameter_px, "px") if is_given else None, None
    )
    if size is None or size.doubt:
        return {"stopped": "nothing seen" if size is None else size.doubt}
    working_px = size.diameter.middle_px(None)
    images = [working_image(one.micrograph, diameter_px=working_px, preprocessing="corrected") for one in drawn]
    usable = [image for image in images if image is not None]
    entry: dict[str, Any] = {
        "diameter_px": working_px,
        "body": size.body,
        "is_hollow": size.is_hollow,
        "quarter": quarter_of_circles(usable, size),
        "particles": sum(len(one.xy_px) for one in drawn),
    }
    for name, is_round in (("round", True), ("irregular", False)):
        chosen = right = view_right = 0
        for one, image, labelled in zip(drawn, usable, label_images(usable, size, is_round=is_round), strict=True):
            xy_px = image.scale.to_stored_xy(labelled.xy_px[labelled.is_good])
            pairs = match_picks(xy_px, one.xy_px, np.zeros((0, 2)), max_distance_px=0.25 * diameter_px).pairs
            own, true = labelled.view[labelled.is_good][pairs.first], one.view[pairs.second]
            chosen, right = chosen + len(xy_px), right + len(pairs.first)
            view_right += int(np.count_nonzero(own == true))
        entry[name] = {"chosen": chosen, "right": right, "view_right": view_right}
    return entry


def as_markdown(found: dict[str, Any]) -> str:
    lines = [
        "# Round or irregular",
        "",
        "Made by `python benchmarks/round_or_irregular.py`. Examples that `deepcryopicker` chooses with circles taken",
        f"for round and for irregular particles: right ones / all, and right views. Limit {found['threshold']:g}.",
        "",
        f"Machine: {found['machine']}",
        "",
        "| set | diameter | dark part | quartile | particles | taken for round | for irregular |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        if "stopped" in row:
            lines.append(f"| {row['set']} | {row['diameter']} | {row['stopped']} | | | | |")
            continue
        quarter = "-" if row["quarter"] is None else f"{row['quarter']:.3f}"
        cells = " | ".join(
            f"{own['right']}/{own['chosen']}, {own['view_right']}" for own in (row["round"], row["irregular"])
        )
        part = "ring" if row["is_hollow"] else f"{row['body']:.2f}"
        lines.append(
            f"| {row['set']} | {row['diameter']}, {row['diameter_px']:.0f} px | {part} | {quarter} | "
            f"{row['particles']} | {cells} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
