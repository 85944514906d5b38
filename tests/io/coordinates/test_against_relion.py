"""RELION cuts out the pixels that we mean, from our STAR and from our .box files alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from relion_here import cut_out

from cryopick.io.coordinates.formats import write_picks
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.star import make_table, write_star
from cryopick.types import Micrograph, Picks

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="needs RELION's relion_preprocess"),
]

SHAPE = (90, 140)
SIZE_PX = 16
XY = np.array([[20.0, 12.0], [131.0, 70.0], [64.0, 81.0]])


@pytest.mark.parametrize(("format_name", "box_px"), [("star", None), ("box", 16), ("box", 25)])
def test_relion_extracts_the_box_around_each_centre_of_a_rectangular_image(
    tmp_path: Path, format_name: str, box_px: float | None
) -> None:
    pixels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    write_micrograph(tmp_path / "m1.mrc", Micrograph(pixels, pixel_size_angstrom=2.0))
    group = {"rlnOpticsGroupName": ["g1"], "rlnOpticsGroup": [1], "rlnMicrographPixelSize": [2.0]}
    physics = {"rlnVoltage": [300.0], "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1]}
    micrographs = {"rlnMicrographName": ["m1.mrc"], "rlnOpticsGroup": [1]}
    tables = [make_table("optics", {**group, **physics}), make_table("micrographs", micrographs)]
    write_star(tmp_path / "micrographs.star", tables, version=30001)
    picks = Picks(xy_px=XY, micrograph_name="m1.mrc", shape_yx=SHAPE)
    (file, *_) = write_picks([picks], tmp_path / "picks", format=format_name, box_px=box_px)
    boxes = cut_out(tmp_path, "picks", box_px=SIZE_PX, suffix=file.name.removeprefix("m1"))
    half = SIZE_PX // 2
    for cut, (x, y) in zip(boxes, XY.astype(int), strict=True):
        inside = pixels[max(0, y - half) : y + half, max(0, x - half) : x + half]
        assert np.array_equal(cut[: inside.shape[0], : inside.shape[1]], inside)
