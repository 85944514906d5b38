"""RELION itself extracts from a run folder, and what it cuts out is the particle: centred, not flipped, dark."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from relion_here import cut_out

from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.settings import make_settings
from cryopick.types import Micrograph
from cryopick.workflows.pick import pick_to_folder

pytestmark = [
    pytest.mark.relion,
    pytest.mark.skipif(shutil.which("relion_preprocess") is None, reason="RELION's programs are not installed"),
]

DIAMETER_PX = 30
BOX_PX = 60
SHAPE_YX = (260, 400)
HEADER = """# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
g1 1 2.0 300 2.7 0.1

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
"""


def lopsided_micrograph(seed: int, *, sign: float) -> Micrograph:
    """Discs of 30 px with a stronger spot 8 px right of and 5 px below the centre, which any flip would move."""
    generator = np.random.default_rng(seed)
    pixels = generator.normal(0, 0.5, SHAPE_YX)
    rows, columns = np.mgrid[: SHAPE_YX[0], : SHAPE_YX[1]]
    for x0 in range(50, 360, 75):
        for y0 in (50, 130, 210):
            x, y = np.array([x0, y0]) + generator.uniform(-10, 10, 2)
            pixels += sign * ((columns - x) ** 2 + (rows - y) ** 2 <= (DIAMETER_PX / 2) ** 2)
            pixels += sign * ((columns - x - 8) ** 2 + (rows - y - 5) ** 2 <= 3**2)
    return Micrograph(pixels.astype(np.float32), pixel_size_angstrom=2.0)


def extract_and_average(project: Path) -> np.ndarray:
    """(box, box) mean of the particles that RELION cuts out, background 0."""
    return cut_out(project, "run/picks", box_px=BOX_PX, background_radius_px=25).mean(axis=0)


@pytest.mark.parametrize(("suffix", "contrast"), [(".mrc", "dark"), (".mrc", "bright"), (".tif", "dark")])
def test_the_average_of_what_relion_extracts_is_the_particle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, contrast: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MotionCorr" / "job002" / "Movies").mkdir(parents=True)
    names = [f"MotionCorr/job002/Movies/m{seed}{suffix}" for seed in range(3)]
    sign = -1.0 if contrast == "dark" else 1.0
    for seed, name in enumerate(names):
        write_micrograph(tmp_path / name, lopsided_micrograph(seed, sign=sign))
    (tmp_path / "micrographs.star").write_text(HEADER + "".join(f"{name} 1\n" for name in names) + "\n")
    settings = make_settings("blob", diameter="60A", contrast=contrast, edge_margin="60A")
    summary = pick_to_folder(["micrographs.star"], Path("run"), settings, workers=1)
    assert summary.particles == 45

    average = extract_and_average(tmp_path) * sign
    rows, columns = np.mgrid[:BOX_PX, :BOX_PX] - BOX_PX // 2
    inside = np.hypot(rows, columns) < DIAMETER_PX / 2
    assert average[inside].mean() > 5 * average[~inside].std()  # the particle, with the sign it has in the micrograph
    weight = np.clip(average - average[~inside].mean(), 0, None) * (np.hypot(rows, columns) < 22)
    centre = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    # the spot holds 29 of the 735 units of density, which moves the centre of mass by 0.3 and 0.2 px; RELION cuts
    # coordinates to whole pixels, which moves it by half a pixel more
    assert np.abs(centre - [0.8, 0.7]).max() < 0.8
    spots = {(sx, sy): average[BOX_PX // 2 + 5 * sy, BOX_PX // 2 + 8 * sx] for sx in (-1, 1) for sy in (-1, 1)}
    assert max(spots, key=spots.__getitem__) == (1, 1), "flipped"
