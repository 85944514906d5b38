"""Maps of a run against masks: pixel by pixel, with and without a random field."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from discs import disc_micrograph
from typer.testing import CliRunner

from cryopick.cli.main import build_app
from cryopick.errors import InputError, SettingsError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.images.raster import write_png
from cryopick.runs.settings import make_settings
from cryopick.workflows.evaluate import evaluate_masks
from cryopick.workflows.pick import pick_to_folder

SHAPE_YX = (120, 160)
NAMES = ("m0", "m1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two micrographs with maps at full size, before and after the dense CRF, and masks of them."""
    folder = tmp_path_factory.mktemp("masks")
    for seed, name in enumerate(NAMES):
        write_micrograph(folder / "mics" / f"{name}.mrc", disc_micrograph(name, seed=seed))
        mask = np.zeros(SHAPE_YX, np.uint8)
        mask[20:60, 30:70] = 255
        write_png(folder / "masks" / f"{name}.png", mask)
    settings = make_settings("segmentation-crf", crf="dense", diameter="20px", views=1, full_maps=True, added_noise=0.0)
    pick_to_folder([folder / "mics"], folder / "run", settings, workers=1)
    return folder


def by_counting(folder: Path, ending: str) -> np.ndarray:
    """(2, 2) pixels by truth and answer, pooled, pixel by pixel."""
    counts = np.zeros((2, 2), np.int64)
    for name in NAMES:
        probability = cv2.imread(str(folder / "run/images" / f"{name}.particle probability{ending}.png"), -1)
        truth = cv2.imread(str(folder / "masks" / f"{name}.png"), -1) > 0
        assert probability.shape == truth.shape
        for true in (0, 1):
            for found in (0, 1):
                counts[true, found] += int(((truth == true) & ((probability > 127) == found)).sum())
    return counts


def test_pixels_are_counted_as_a_loop_counts_them_with_and_without_the_field(run: Path) -> None:
    evaluation = evaluate_masks(run / "run", run / "masks")
    assert evaluation.classes == ("background", "particle")
    titles = {scores.title: scores.pooled for scores in evaluation.scores}
    assert set(titles) == {"with CRF", "without CRF"}
    assert (titles["with CRF"].counts == by_counting(run, "")).all()
    assert (titles["without CRF"].counts == by_counting(run, " before the random field")).all()
    assert evaluation.notes == ()


def test_ignored_pixels_and_the_rim_do_not_count(run: Path, tmp_path: Path) -> None:
    ignored = np.zeros(SHAPE_YX, np.uint8)
    ignored[:, :80] = 255
    for name in NAMES:
        write_png(tmp_path / "masks" / f"{name}.png", np.zeros(SHAPE_YX, np.uint8))
        write_png(tmp_path / "ignore" / f"{name}.png", ignored)
    assert evaluate_masks(run / "run", tmp_path).scores[0].pooled.counts.sum() == 2 * 120 * 80
    assert evaluate_masks(run / "run", tmp_path, rim_px=10).scores[0].pooled.counts.sum() == 2 * 100 * 70


def test_what_cannot_be_compared_is_an_error(run: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "elsewhere.png", np.zeros(SHAPE_YX, np.uint8))
    with pytest.raises(InputError, match="names must agree"):
        evaluate_masks(run / "run", tmp_path)
    with pytest.raises(InputError, match="no run folder"):
        evaluate_masks(run / "masks", run / "masks")
    classes = np.zeros(SHAPE_YX, np.uint8)
    classes[:9] = 2
    for name in NAMES:
        write_png(tmp_path / "three" / f"{name}.png", classes)
    (tmp_path / "three" / "classes.txt").write_text("ice\nparticle\ncarbon\n")
    with pytest.raises(InputError, match="3 classes, but the run maps particles only"):
        evaluate_masks(run / "run", tmp_path / "three")
    with pytest.raises(SettingsError, match="expected 0 or more"):
        evaluate_masks(run / "run", run / "masks", rim_px=-1)


def test_the_command_prints_a_table_and_writes_files(run: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(run / "run"), "--masks", str(run / "masks"), "-o", str(tmp_path / "scores")]
    result = CliRunner().invoke(build_app("evaluate"), words)
    assert result.exit_code == 0, result.output
    assert "| without CRF | particle" in result.output
    found = json.loads((tmp_path / "scores" / "masks.json").read_text())
    assert found["maps"]["with CRF"]["pixels"] == by_counting(run, "").tolist()
    assert len((tmp_path / "scores" / "masks.csv").read_text().splitlines()) == 1 + 2 * 2 * 2
    assert CliRunner().invoke(build_app("evaluate"), ["evaluate", str(run / "run")]).exit_code != 0
