"""EMAN2 `info/<micrograph>_info.json`: box centres among what else EMAN2 knows of the micrograph."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cryopick.errors import FormatError
from cryopick.io.coordinates.grouping import as_float32, require_writable, without_sentinels
from cryopick.io.coordinates.names import micrograph_name_of_file
from cryopick.io.files.json_object import finite_number, read_json_object
from cryopick.io.files.text import write_text
from cryopick.types import Picks

WHAT = "an EMAN2 info file with boxes [[x, y, kind], ...]"


def read_eman_json(path: Path) -> Picks:
    """The picks of one micrograph; x and y are centres, y counted as ours. A fourth number is a score.

    Raises
    ------
    FormatError
        If it is not such a file, or an entry is malformed (numbered from 1).
    """
    content = read_json_object(path, what=WHAT)
    boxes = content.get("boxes")
    if content.get("boxes_3d") and not boxes:
        raise FormatError(f"{path}: holds boxes_3d of a tomogram, expected `boxes` of a micrograph")
    if not isinstance(boxes, list):
        raise FormatError(f"{path}: has no list `boxes`; expected {WHAT}")
    xy_px = np.empty((len(boxes), 2))
    score = np.full(len(boxes), np.nan)
    for row, box in enumerate(boxes):
        where = f"{path} box {row + 1}"
        if not isinstance(box, list) or len(box) < 2:
            raise FormatError(f"{where} is {str(box)[:60]}, expected [x, y, kind]; fix or delete the entry")
        xy_px[row] = finite_number(box[0], where=f"{where}: x"), finite_number(box[1], where=f"{where}: y")
        if len(box) > 3:
            score[row] = finite_number(box[3], where=f"{where}: score")
    return Picks(
        xy_px=xy_px,
        score=as_float32(without_sentinels(score), path=path, what="score"),
        micrograph_name=micrograph_name_of_file(path.name),
    )


def write_eman_json(path: Path, picks: Picks) -> None:
    """Write the centres; what an existing file holds besides boxes (the CTF, for example) is kept.

    Raises
    ------
    InputError
        If a centre is not finite.
    """
    require_writable(picks)
    content = read_json_object(path, what=WHAT) if path.is_file() else {}
    rows = zip(picks.xy_px.tolist(), picks.score.tolist(), np.isfinite(picks.score).tolist(), strict=True)
    content["boxes"] = [[x, y, "manual", score] if has_score else [x, y, "manual"] for (x, y), score, has_score in rows]
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")
