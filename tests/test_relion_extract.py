"""RELION's own extraction from written picks: the boxes are the pixels around each particle, and only in our frame."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from relion_here import cut_out

from cryopick.io.coordinates.formats import write_picks
from cryopick.io.images.micrographs import write_micrograph
from cryopick.types import Micrograph, Picks

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="needs RELION's relion_preprocess"),
]

SHAPE_YX = (210, 340)
BOX_PX = 32
# All in the upper half, all different from each other under any flip or swap of axes.
CENTRES_XY = np.array([[40, 30], [95, 52], [160, 24], [231, 71], [300, 40], [70, 95]])


def letter_l() -> NDArray[np.float32]:
    """(17, 17) a dark capital L, upright in array order: a long stroke at the left, its foot at the highest rows."""
    particle = np.zeros((17, 17), np.float32)
    particle[2:15, 4:7] = -1.0
    particle[12:15, 4:14] = -1.0
    return particle


def micrograph_of_letters() -> Micrograph:
    pixels = np.random.default_rng(7).normal(10, 0.1, SHAPE_YX).astype(np.float32)
    for x, y in CENTRES_XY:
        pixels[y - 8 : y + 9, x - 8 : x + 9] += letter_l()
    return Micrograph(pixels, name="mics/m1.mrc", pixel_size_angstrom=1.5)


def extract(folder: Path, xy_px: NDArray[np.float64], *, is_inverted: bool = False) -> NDArray[np.float32]:
    """(n, box, box) what RELION cuts out of the micrograph at picks that we wrote."""
    micrograph = micrograph_of_letters()
    write_micrograph(folder / micrograph.name, micrograph)
    picks = Picks(xy_px=xy_px, score=np.ones(len(xy_px)), micrograph_name=micrograph.name, shape_yx=SHAPE_YX)
    write_picks([picks], folder / "picks", format="star")
    (folder / "micrographs.star").write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
        "_rlnMicrographPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\n"
        "g1 1 1.5 300 2.7 0.1\n\n# version 30001\n\ndata_micrographs\n\nloop_\n_rlnMicrographName #1\n"
        f"_rlnOpticsGroup #2\n{micrograph.name} 1\n\n"
    )
    return cut_out(folder, "picks", box_px=BOX_PX, is_inverted=is_inverted)


def similarity(average: NDArray[np.float32]) -> float:
    """Correlation of the middle of an averaged box with the letter."""
    middle = average[BOX_PX // 2 - 8 : BOX_PX // 2 + 9, BOX_PX // 2 - 8 : BOX_PX // 2 + 9]
    return float(np.corrcoef(middle.ravel(), letter_l().ravel())[0, 1])


def test_every_box_holds_exactly_the_pixels_around_its_pick(tmp_path: Path) -> None:
    boxes = extract(tmp_path, CENTRES_XY.astype(np.float64))
    pixels = micrograph_of_letters().pixels
    half = BOX_PX // 2
    expected = [pixels[y - half : y + half, x - half : x + half] for x, y in CENTRES_XY]
    assert boxes.shape == (6, BOX_PX, BOX_PX)
    np.testing.assert_array_equal(boxes, expected)


def test_average_is_the_particle_dark_or_bright_as_asked(tmp_path: Path) -> None:
    average = extract(tmp_path / "dark", CENTRES_XY.astype(np.float64)).mean(axis=0)
    assert similarity(average) > 0.98
    for flipped in (average[::-1], average[:, ::-1], average.T):
        assert similarity(np.roll(flipped, 1, axis=0)) < 0.9
    inverted = extract(tmp_path / "bright", CENTRES_XY.astype(np.float64), is_inverted=True).mean(axis=0)
    assert similarity(inverted) < -0.98


def test_picks_in_any_other_frame_do_not_give_the_particle(tmp_path: Path) -> None:
    height, width = SHAPE_YX
    y_flipped = np.stack([CENTRES_XY[:, 0], height - 1 - CENTRES_XY[:, 1]], axis=1)
    x_flipped = np.stack([width - 1 - CENTRES_XY[:, 0], CENTRES_XY[:, 1]], axis=1)
    for number, wrong in enumerate((y_flipped, x_flipped)):
        boxes = extract(tmp_path / str(number), wrong.astype(np.float64))
        assert abs(similarity(boxes.mean(axis=0))) < 0.5


def test_sub_pixel_picks_are_cut_less_than_a_pixel_off(tmp_path: Path) -> None:
    # RELION cuts coordinates to whole pixels; 0.9 px must still give the particle, and never its neighbour's box.
    boxes = extract(tmp_path, CENTRES_XY + 0.9)
    assert similarity(boxes.mean(axis=0)) > 0.98
