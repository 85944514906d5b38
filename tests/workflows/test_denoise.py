"""Denoised micrographs in a folder: what each denoiser gives, in place, at the right pixel size, resumable."""

import json

import numpy as np
import pytest

from cryopick.errors import RunFolderError, SettingsError
from cryopick.geometry.units import parse_length
from cryopick.io.images.micrographs import read_micrograph, write_micrograph
from cryopick.pickers.cryoemmae.denoise import prepare_cryoemmae
from cryopick.pickers.deepcryopicker.denoise import AutoCryoPickerSettings, prepare_autocryopicker
from cryopick.pickers.denoisers import Denoiser, denoisers
from cryopick.processing.denoise.corrected import denoise_corrected
from cryopick.processing.denoise.published import denoise_published
from cryopick.types import Micrograph
from cryopick.workflows.denoise import SETTINGS, denoise

SHAPE_YX, ANGSTROM = (128, 128), 2.0
DIRECT = {
    "published": lambda pixels: denoise_published(pixels).image,
    "article": lambda pixels: denoise_published(pixels, guide="equalized").image,
    "corrected": lambda pixels: denoise_corrected(pixels, diameter_px=48)[0],
    "cryoemmae": lambda pixels: prepare_cryoemmae(pixels, diameter_px=48).picture,
    "deepcryopicker": lambda pixels: prepare_autocryopicker(pixels)[0],
    "supercryopicker": lambda pixels: prepare_autocryopicker(
        pixels, settings=AutoCryoPickerSettings(opening_px=(5,))
    )[0],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Two micrographs, one in a folder below."""
    for number, name in enumerate(("a.mrc", "below/b.mrc")):
        rng = np.random.default_rng(number)
        pixels = rng.standard_normal(SHAPE_YX).astype(np.float32)
        pixels[40:70, 50:80] -= 2
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(path, Micrograph(pixels, name, pixel_size_angstrom=ANGSTROM))
    return tmp_path / "raw"


def diameter_for(one: Denoiser):
    return parse_length("48px") if one.needs_diameter else None


@pytest.mark.parametrize("name", list(DIRECT))
def test_a_denoiser_gives_what_its_function_gives_with_the_pixel_size_of_the_result(folder, tmp_path, name):
    one = denoisers()[name]
    summary = denoise([folder], tmp_path / "out", method=name, diameter=diameter_for(one), workers=2)
    assert (summary.micrographs, summary.made, summary.failed) == (2, 2, {})
    for relative in ("a.mrc", "below/b.mrc"):
        raw, made = read_micrograph(folder / relative), read_micrograph(tmp_path / "out" / relative)
        wanted = DIRECT[name](raw.pixels)
        assert np.array_equal(made.pixels, wanted.astype(np.float32))
        assert made.pixel_size_angstrom == pytest.approx(ANGSTROM * SHAPE_YX[0] / wanted.shape[0], rel=1e-3)


def test_every_denoiser_of_the_registry_is_compared_with_its_function():
    assert set(denoisers()) == set(DIRECT)


@pytest.mark.parametrize(("name", "kind"), [("published", "png"), ("deepcryopicker", "tif")])
def test_8_bit_images_hold_grey_levels_in_the_same_rows(folder, tmp_path, name, kind):
    denoise([folder / "a.mrc"], tmp_path / "out", method=name, kind=kind)
    made = read_micrograph(tmp_path / "out" / f"a.{kind}").pixels
    wanted = DIRECT[name](read_micrograph(folder / "a.mrc").pixels)
    wanted = wanted if wanted.dtype == np.uint8 else np.rint(255 * wanted)
    assert np.array_equal(made, wanted.astype(np.float32))


def test_the_same_call_again_makes_only_what_is_missing_or_older_than_its_micrograph(folder, tmp_path):
    out = tmp_path / "out"
    assert denoise([folder], out, method="deepcryopicker").made == 2
    assert denoise([folder], out, method="deepcryopicker").made == 0
    (out / "a.mrc").unlink()
    assert denoise([folder], out, method="deepcryopicker").made == 1
    raw = folder / "below/b.mrc"
    raw.touch()
    assert denoise([folder], out, method="deepcryopicker").made == 1
    with pytest.raises(RunFolderError, match="method was deepcryopicker, is supercryopicker"):
        denoise([folder], out, method="supercryopicker")


def test_a_micrograph_that_cannot_be_read_does_not_stop_the_others(folder, tmp_path):
    (folder / "broken.mrc").write_bytes(b"no image")
    summary = denoise([folder], tmp_path / "out", method="deepcryopicker")
    assert list(summary.failed) == ["broken.mrc"]
    assert (summary.micrographs, summary.made) == (2, 2)


def test_nothing_is_written_over_the_micrographs_or_into_folders_of_others(folder, tmp_path):
    before = (folder / "a.mrc").read_bytes()
    with pytest.raises(RunFolderError, match="is a micrograph to be denoised"):
        denoise([folder / "a.mrc"], folder, method="published")
    assert (folder / "a.mrc").read_bytes() == before
    with pytest.raises(RunFolderError, match="holds other files"):
        denoise([folder / "a.mrc"], folder / "below", method="published")


@pytest.mark.parametrize(
    ("method", "diameter", "message"),
    [("corrected", None, "needs the particle diameter"), ("published", "48px", "does not look at"),
     ("best", None, "no denoiser is called 'best'; known: published")],
)  # fmt: skip
def test_a_diameter_that_is_missing_or_not_looked_at_is_an_error(folder, tmp_path, method, diameter, message):
    with pytest.raises(SettingsError, match=message):
        denoise([folder], tmp_path / "out", method=method, diameter=diameter and parse_length(diameter))
    assert not (tmp_path / "out").exists()


def test_an_image_squeezed_into_a_square_has_no_pixel_size_and_says_so(tmp_path):
    pixels = np.random.default_rng(0).standard_normal((128, 160)).astype(np.float32)
    write_micrograph(tmp_path / "wide.mrc", Micrograph(pixels, "wide", pixel_size_angstrom=ANGSTROM))
    summary = denoise([tmp_path / "wide.mrc"], tmp_path / "out", method="cryoemmae", diameter=parse_length("96A"))
    assert "no one pixel size" in summary.warnings[0]
    made = read_micrograph(tmp_path / "out" / "wide.mrc")
    assert (made.pixels.shape, made.pixel_size_angstrom) == ((1024, 1024), None)
    assert json.loads((tmp_path / "out" / SETTINGS).read_text())["diameter"] == "96A"


def test_what_reading_a_micrograph_warns_of_and_an_image_without_contrast_are_told(tmp_path):
    for name, value in (("equal", 3.0), ("missing", np.nan)):
        write_micrograph(tmp_path / f"{name}.mrc", Micrograph(np.full(SHAPE_YX, value, np.float32), name))
    summary = denoise([tmp_path], tmp_path / "out", method="published")
    told = "\n".join(summary.warnings)
    assert "all pixels are equal, or no numbers; was the file written to its end? (equal.mrc" in told
    assert "pixels are NaN or infinite (missing.mrc)" in told


def test_a_failed_micrograph_is_counted_among_all(folder, tmp_path):
    from typer.testing import CliRunner

    from cryopick.cli.main import build_app

    (folder / "bad.mrc").write_bytes(b"x")
    result = CliRunner().invoke(build_app("denoise"), ["denoise", str(folder), "-o", str(tmp_path / "out")])
    count = len(list(folder.rglob("*.mrc")))
    assert f"1 of {count} micrographs failed" in str(result.exception)
