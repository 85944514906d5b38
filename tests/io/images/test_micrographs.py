"""One pair of functions for every image format."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cryopick.errors import InputError, SettingsError
from cryopick.io.coordinates.names import without_extension
from cryopick.io.images.formats import IMAGE_FORMATS, ImageFormat, image_format
from cryopick.io.images.info import DecodedImage, ImageInfo
from cryopick.io.images.micrographs import probe_image, read_micrograph, write_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.io.inputs.sources import find_micrographs
from cryopick.types import Micrograph

LOSSLESS = [
    ("m.mrc", "float32"),
    ("m.mrc", "float16"),
    ("m.mrc", "int8"),
    ("m.mrc", "int16"),
    ("m.mrc", "uint16"),
    ("m.mrc.gz", "float32"),
    ("m.mrc.bz2", "float32"),
    ("m.tif", "float32"),
    ("m.tif", "uint8"),
    ("m.tiff", "int16"),
    ("m.png", "uint8"),
    ("m.png", "uint16"),
]


@pytest.mark.parametrize(("name", "dtype"), LOSSLESS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pixels=st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
        lambda shape: arrays(np.float32, shape, elements=st.integers(0, 127))
    )
)
def test_round_trip_of_any_rectangle_is_exact(tmp_path, name, dtype, pixels):
    write_micrograph(tmp_path / name, Micrograph(pixels, pixel_size_angstrom=1.5), dtype=dtype)
    back = read_micrograph(tmp_path / name)
    assert back.pixels.dtype == np.float32
    assert np.array_equal(back.pixels, pixels)
    assert back.pixel_size_angstrom == (1.5 if ".mrc" in name else None)
    info = probe_image(tmp_path / name)
    assert (info.shape_yx, info.dtype, info.n_frames, info.kind) == (pixels.shape, dtype, 1, "image")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pixels=arrays(np.float32, (3, 5), elements=st.floats(width=32)))
def test_any_float_survives_mrc_bit_for_bit(tmp_path, pixels):
    write_micrograph(tmp_path / "m.mrc", Micrograph(pixels))
    back = read_micrograph(tmp_path / "m.mrc")
    assert np.array_equal(back.pixels, pixels, equal_nan=True)
    n_bad = int((~np.isfinite(pixels)).sum())
    told = [warning for warning in back.warnings if "NaN or infinite" in warning]
    assert told == ([f"{n_bad} of 15 pixels are NaN or infinite"] if n_bad else [])


def test_infinities_of_both_signs_are_written_in_silence(tmp_path):
    pixels = np.array([[np.inf, -np.inf], [0, 1]], "f4")
    write_micrograph(tmp_path / "m.mrc", Micrograph(pixels))
    assert np.array_equal(read_micrograph(tmp_path / "m.mrc").pixels, pixels)


def test_huge_finite_values_whose_sum_overflows_are_not_called_infinite(tmp_path):
    write_micrograph(tmp_path / "m.mrc", Micrograph(np.full((4, 6), 3e38, "f4"), pixel_size_angstrom=2.0))
    assert read_micrograph(tmp_path / "m.mrc").warnings == ()


def test_name_defaults_to_the_file_and_can_be_given(tmp_path):
    path = tmp_path / "mit Leerzeichen Å.mrc"
    write_micrograph(path, Micrograph(np.zeros((3, 4))))
    assert read_micrograph(path).name == "mit Leerzeichen Å.mrc"
    micrograph = read_micrograph(str(path), name="a/b.mrc", pixel_size_angstrom=0.7)
    assert (micrograph.name, micrograph.path, micrograph.pixel_size_angstrom) == ("a/b.mrc", path, 0.7)


def test_pixel_size_order_of_trust_and_doubts_reach_the_micrograph(tmp_path):
    write_mrc(tmp_path / "m.mrc", np.zeros((3, 4), "f4"), pixel_size_angstrom=1.0)
    header = read_micrograph(tmp_path / "m.mrc")
    assert header.pixel_size_angstrom == 1.0
    assert "exactly 1" in header.warnings[0]
    assert read_micrograph(tmp_path / "m.mrc", optics_pixel_size_angstrom=1.4).pixel_size_angstrom == 1.4
    both = read_micrograph(tmp_path / "m.mrc", pixel_size_angstrom=1.42, optics_pixel_size_angstrom=1.4)
    assert (both.pixel_size_angstrom, both.warnings) == (1.42, ())
    write_mrc(tmp_path / "zero.mrc", np.zeros((3, 4), "f4"))
    zero = read_micrograph(tmp_path / "zero.mrc")
    assert zero.pixel_size_angstrom is None
    assert "unknown" in zero.warnings[0]


@pytest.mark.parametrize("name", ["m.txt", "m", "m.gz", "m.png.gz", "mrc"])
def test_unknown_suffixes_list_the_known_ones(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"not a known image type; expected \.mrc"):
        read_micrograph(tmp_path / name)


def test_suffixes_count_in_any_case():
    assert [image_format(name).name for name in ("a.MRC", "b.Tif", "c.JPEG", "d.mrc.GZ", "e.EER")] == [
        "MRC",
        "TIFF",
        "JPEG",
        "MRC",
        "EER",
    ]


def test_values_that_an_integer_type_cannot_hold_are_refused_not_clipped(tmp_path):
    micrograph = Micrograph(np.array([[0.0, 300.0], [1.0, 2.0]]))
    with pytest.raises(SettingsError, match="0 to 300 do not fit uint8"):
        write_micrograph(tmp_path / "m.png", micrograph)
    with pytest.raises(SettingsError, match="do not fit float16"):
        write_micrograph(tmp_path / "m.mrc", Micrograph(np.full((2, 2), 7e4)), dtype="float16")
    with pytest.raises(SettingsError, match="NaN"):
        write_micrograph(tmp_path / "m.mrc", Micrograph(np.full((2, 2), np.nan)), dtype="int16")
    with pytest.raises(SettingsError, match="'float32' cannot be stored"):
        write_micrograph(tmp_path / "m.png", micrograph, dtype="float32")
    with pytest.raises(SettingsError, match="EER files are not written"):
        write_micrograph(tmp_path / "m.eer", micrograph)
    assert list(tmp_path.iterdir()) == []


def test_rescaling_uses_the_whole_range_of_the_type(tmp_path):
    micrograph = Micrograph(np.array([[-1.0, 0.0], [1.0, 3.0]]))
    write_micrograph(tmp_path / "m.png", micrograph, is_rescaled=True)
    assert read_micrograph(tmp_path / "m.png").pixels.tolist() == [[0, 64], [128, 255]]
    write_micrograph(tmp_path / "m.mrc", micrograph, dtype="int8", is_rescaled=True)
    assert read_micrograph(tmp_path / "m.mrc").pixels.tolist() == [[-128, -64], [0, 127]]
    write_micrograph(tmp_path / "flat.png", Micrograph(np.full((2, 3), 7.5)), is_rescaled=True)
    assert read_micrograph(tmp_path / "flat.png").pixels.max() == 0


def test_importing_the_reader_loads_no_decoder():
    code = (
        "import sys; import cryopick.io.images, cryopick.io.inputs.sources; "
        "print([m for m in ('cv2', 'tifffile', 'mrcfile', 'torch', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_a_new_format_is_one_row(tmp_path, monkeypatch):
    def probe(path):
        height, width = map(int, path.read_text().splitlines()[0].split())
        return ImageInfo(path=path, format="TOY", kind="image", shape_yx=(height, width), dtype="float32")

    def read(path, *, max_pixels):
        rows = path.read_text().splitlines()[1:]
        return DecodedImage(pixels=np.array([row.split() for row in rows], np.float32), info=probe(path))

    def write(path, pixels, pixel_size_angstrom):
        rows = [" ".join(map(str, row)) for row in [pixels.shape, *pixels]]
        path.write_text("\n".join(rows))

    toy = ImageFormat(
        name="TOY",
        suffixes=(".toy",),
        found_in_folders=(".toy",),
        probe=probe,
        read=read,
        write=write,
        dtypes=("float32",),
    )
    monkeypatch.setitem(IMAGE_FORMATS, "TOY", toy)
    pixels = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_micrograph(tmp_path / "m1.toy", Micrograph(pixels))
    assert probe_image(tmp_path / "m1.toy").shape_yx == (2, 3)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "m1.toy").pixels, pixels)
    assert [source.path for source in find_micrographs([tmp_path])] == [tmp_path / "m1.toy"]
    assert without_extension("a/m1.toy") == "a/m1"
