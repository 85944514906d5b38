"""Small labelled sets of discs in the layouts that people download."""

import json
from pathlib import Path

import numpy as np
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.io.images.micrographs import write_micrograph

SHAPE_YX = (120, 160)


def write_csv(path: Path, xy: np.ndarray, *, header: str = "x,y", tail: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f"{x:.3f},{y:.3f}{tail}" for x, y in xy)]) + "\n")


def write_cryoppp_set(folder: Path, seeds: range, *, diameter_px: float = DIAMETER_PX, name: str = "m{}") -> Path:
    """As published: micrographs, and tables with y counted from the bottom (height minus row)."""
    for seed in seeds:
        stem = name.format(seed)
        path = folder / "micrographs" / f"{stem}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(path, disc_micrograph(stem, seed=seed))
        xy = disc_centres(seed)
        xy[:, 1] = SHAPE_YX[0] - xy[:, 1]
        table = folder / "ground_truth" / "particle_coordinates" / f"{stem}.csv"
        write_csv(table, xy, header="X-Coordinate,Y-Coordinate,Diameter", tail=f",{diameter_px}")
    return folder


def write_cryoppp(folder: Path, sets: dict[str, int]) -> Path:
    """Sets by their EMPIAR numbers, with so many micrographs each; no two micrographs are alike."""
    first = 0
    for number, count in sets.items():
        write_cryoppp_set(folder / number, range(first, first + count))
        first += count
    return folder


def write_released_coco(folder: Path, parts: dict[str, int]) -> Path:
    """As CryoTransformer's authors released theirs: a folder of pictures for each part, its labels in `annotations`."""
    seed = 0
    for part, count in parts.items():
        images, annotations = [], []
        for _ in range(count):
            name = f"m{seed}.png"
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_micrograph(path, disc_micrograph(name, seed=seed), is_rescaled=True)
            images.append({"id": seed, "file_name": name, "height": SHAPE_YX[0], "width": SHAPE_YX[1]})
            for x, y in disc_centres(seed):
                box = [x - DIAMETER_PX / 2, y - DIAMETER_PX / 2, DIAMETER_PX, DIAMETER_PX]
                annotations.append({"id": len(annotations), "image_id": seed, "category_id": 1, "bbox": box})
            seed += 1
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "particle"}]}
        path = folder / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder
