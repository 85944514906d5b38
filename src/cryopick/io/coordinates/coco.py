"""COCO JSON, for detectors of the DETR kind: images, and annotations with `bbox = [x, y, width, height]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.boxes import centres_of_boxes, corners_of_boxes
from cryopick.io.coordinates.box import BoxSize, box_sizes
from cryopick.io.coordinates.grouping import as_class_id, as_float32, group_picks, require_writable, without_sentinels
from cryopick.io.files.json_object import finite_number, read_json_object
from cryopick.io.files.text import write_text
from cryopick.types import Picks

WHAT = "a COCO file with images and annotations"


def read_coco(path: Path) -> dict[str, Picks]:
    """Picks by the images' file names: centres of the boxes, their mean side as diameter, `score` where there is one.

    `bbox` starts at the upper left corner, counted as the field's detectors write it (centre minus half a side, no
    half-pixel shift). The smallest category id is class 0.

    Raises
    ------
    FormatError
        If it is not such a file, or an entry is malformed.
    """
    content = read_json_object(path, what=WHAT)
    images, annotations = content.get("images"), content.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise FormatError(f"{path}: has no lists `images` and `annotations`; expected {WHAT}")
    name_of: dict[Any, str] = {}
    shape_of: dict[str, tuple[int, int]] = {}
    for number, image in enumerate(images, start=1):
        where = f"{path} image {number}"
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise FormatError(f"{where}: has no file_name; expected {WHAT}")
        identity, name = finite_number(image.get("id"), where=f"{where}: id"), image["file_name"]
        if identity in name_of or name in shape_of:
            raise FormatError(f"{where}: id or file_name appears twice; each image must have its own")
        size = [finite_number(image.get(key), where=f"{where}: {key}") for key in ("height", "width")]
        if any(side != round(side) or not 1 <= side < 2**31 for side in size):
            raise FormatError(f"{where}: height and width are {size}, expected whole numbers of pixels")
        name_of[identity], shape_of[name] = name, (int(size[0]), int(size[1]))
    rows, names, scores, categories = np.empty((len(annotations), 4)), [], [], []
    for number, annotation in enumerate(annotations, start=1):
        where = f"{path} annotation {number}"
        box = annotation.get("bbox") if isinstance(annotation, dict) else None
        if not isinstance(box, list) or len(box) != 4:
            raise FormatError(f"{where}: bbox is {str(box)[:60]}, expected [x, y, width, height]")
        rows[number - 1] = [finite_number(value, where=f"{where}: bbox") for value in box]
        if not (rows[number - 1, 2:] > 0).all():
            raise FormatError(f"{where}: bbox is {box}, expected a positive width and height")
        identity = finite_number(annotation.get("image_id"), where=f"{where}: image_id")
        if identity not in name_of:
            raise FormatError(
                f"{where}: image_id {identity:g} is not among the images; add the image or delete the entry"
            )
        names.append(name_of[identity])
        scores.append(finite_number(annotation["score"], where=f"{where}: score") if "score" in annotation else np.nan)
        categories.append(finite_number(annotation.get("category_id", 1), where=f"{where}: category_id"))
    declared = content.get("categories")
    known = [entry.get("id") for entry in declared if isinstance(entry, dict)] if isinstance(declared, list) else []
    first = min([*categories, *(finite_number(value, where=f"{path}: category id") for value in known)], default=1)
    class_id = np.array(categories) - first
    grouped = group_picks(
        names,
        centres_of_boxes(rows[:, :2], rows[:, 2:]),
        score=as_float32(without_sentinels(np.array(scores, dtype=np.float64)), path=path, what="score"),
        diameter_px=as_float32(rows[:, 2:].mean(axis=1), path=path, what="bbox side"),
        class_id=as_class_id(class_id, path=path, what="category_id"),
    )
    empty = Picks(xy_px=np.empty((0, 2)))
    return {n: replace(grouped.get(n, empty), micrograph_name=n, shape_yx=shape) for n, shape in shape_of.items()}


def write_coco(path: Path, picks: Sequence[Picks], *, box_px: BoxSize = None) -> None:
    """One file for all micrographs; ids count from 1 and classes become categories from 1.

    Parameters
    ----------
    box_px : side of every box, or that of each micrograph by its name; None takes each pick's own diameter

    Raises
    ------
    SettingsError
        If an image size or box size is unknown.
    InputError
        If a centre is not finite, or two micrographs have one name.
    """
    names = [one.micrograph_name for one in picks]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"{path}: two micrographs are called {twice}; rename one, a COCO file tells them by name")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, one in enumerate(picks, start=1):
        require_writable(one)
        height, width = known_shape(path, one)
        images.append({"id": image_id, "file_name": one.micrograph_name, "width": width, "height": height})
        side_px = box_sizes(path, one, box_px)
        corner_px = corners_of_boxes(one.xy_px, side_px[:, np.newaxis])
        for k in range(len(one)):
            side = float(side_px[k])
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": int(one.class_id[k]) + 1,
                "bbox": [float(corner_px[k, 0]), float(corner_px[k, 1]), side, side],
                "area": side * side,
                "iscrowd": 0,
            }
            if np.isfinite(one.score[k]):
                annotation["score"] = float(one.score[k])
            annotations.append(annotation)
    classes = sorted({int(class_id) for one in picks for class_id in one.class_id} | {0})
    categories = [{"id": k + 1, "name": "particle" if k == 0 else f"particle class {k}"} for k in classes]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def known_shape(path: Path, picks: Picks) -> tuple[int, int]:
    """The image size, which COCO needs; raises `SettingsError` where it is unknown."""
    if picks.shape_yx is None:
        raise SettingsError(
            f"{path}: COCO needs the image size of {picks.micrograph_name}; pass the micrographs (--micrographs DIR)"
        )
    return picks.shape_yx
