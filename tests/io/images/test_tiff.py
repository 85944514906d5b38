"""TIFF files: RELION's upside-down rows, movies refused."""

import shutil
import subprocess

import numpy as np
import pytest
import tifffile
from PIL import Image

from cryopick.errors import FormatError, SettingsError
from cryopick.io.images.micrographs import probe_image, read_micrograph, write_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.io.images.tiff import read_tiff_image, write_tiff
from cryopick.types import Micrograph

RECTANGLE = (np.arange(36 * 54).reshape(36, 54) * 7) % 100

needs_relion = pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not installed")


def test_last_row_of_the_file_is_row_zero(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", RECTANGLE.astype("u2"))
    assert np.array_equal(read_micrograph(tmp_path / "m.tif").pixels, RECTANGLE[::-1])
    write_tiff(tmp_path / "back.tif", RECTANGLE.astype("u2"))
    assert np.array_equal(tifffile.imread(tmp_path / "back.tif"), RECTANGLE[::-1])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32"])
def test_round_trip_keeps_rows_columns_and_type(tmp_path, dtype):
    write_tiff(tmp_path / "m.tiff", RECTANGLE.astype(dtype))
    image = read_tiff_image(tmp_path / "m.tiff")
    assert image.pixels.dtype == np.dtype(dtype)
    assert np.array_equal(image.pixels, RECTANGLE)
    assert image.info.shape_yx == (36, 54)


@pytest.mark.parametrize("orientation", [1, 3, 4, 8])
def test_orientation_tag_is_ignored_as_relion_does(tmp_path, orientation):
    tifffile.imwrite(tmp_path / "m.tif", RECTANGLE.astype("u2"), extratags=[(274, "H", 1, orientation, True)])
    assert np.array_equal(read_micrograph(tmp_path / "m.tif").pixels, RECTANGLE[::-1])


@pytest.mark.parametrize(
    "options", [{"compression": "lzw"}, {"compression": "zlib"}, {"tile": (16, 16)}, {"bigtiff": True}]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_compressed_tiled_and_big_files_are_read_in_both_byte_orders(tmp_path, options, byteorder):
    tifffile.imwrite(tmp_path / "m.tif", RECTANGLE.astype("u2"), byteorder=byteorder, **options)
    assert np.array_equal(read_micrograph(tmp_path / "m.tif").pixels, RECTANGLE[::-1])


def test_resolution_tags_are_not_taken_for_a_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", RECTANGLE.astype("u2"), resolution=(72, 72), resolutionunit="INCH")
    micrograph = read_micrograph(tmp_path / "m.tif")
    assert micrograph.pixel_size_angstrom is None
    assert read_micrograph(tmp_path / "m.tif", pixel_size_angstrom=1.2).pixel_size_angstrom == 1.2


@pytest.mark.parametrize("imagej", [False, True])
def test_several_frames_are_refused_with_a_remedy(tmp_path, imagej):
    tifffile.imwrite(tmp_path / "movie.tif", np.zeros((5, 36, 54), "u2"), imagej=imagej)
    assert probe_image(tmp_path / "movie.tif").n_frames == 5
    with pytest.raises(FormatError, match=r"5 frames of 54 x 36.*align and sum the frames first"):
        read_micrograph(tmp_path / "movie.tif")


def test_a_thumbnail_beside_the_image_does_not_make_it_a_movie(tmp_path):
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        file.write(RECTANGLE.astype("u2"))
        file.write(RECTANGLE[::4, ::4].astype("u2"), subfiletype=1)
    assert np.array_equal(read_micrograph(tmp_path / "m.tif").pixels, RECTANGLE[::-1])


@pytest.mark.parametrize("name", ["movie.eer", "renamed.tif"])
def test_eer_is_recognised_by_its_compression_and_refused(tmp_path, name):
    path = tmp_path / name
    tifffile.imwrite(path, np.zeros((36, 54), "u1"), metadata=None, bigtiff=True)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(65001)
    assert probe_image(path).kind == "movie"
    with pytest.raises(FormatError, match="EER movie"):
        read_micrograph(path)


def test_equal_colour_channels_are_grey_and_unequal_ones_warn(tmp_path):
    grey = RECTANGLE.astype("u1")
    tifffile.imwrite(tmp_path / "equal.tif", np.stack([grey] * 3, axis=-1), photometric="rgb")
    equal = read_micrograph(tmp_path / "equal.tif")
    assert np.array_equal(equal.pixels, RECTANGLE[::-1])
    assert equal.warnings == ()
    tifffile.imwrite(tmp_path / "colour.tif", np.stack([grey, grey, grey + 3], axis=-1), photometric="rgb")
    coloured = read_micrograph(tmp_path / "colour.tif")
    assert np.allclose(coloured.pixels, RECTANGLE[::-1] + 1)
    assert "colour" in coloured.warnings[0]


def test_planes_of_colour_stored_one_after_the_other_are_averaged_too(tmp_path):
    planes = np.stack([RECTANGLE, RECTANGLE, RECTANGLE + 3]).astype("u1")
    tifffile.imwrite(tmp_path / "m.tif", planes, photometric="rgb", planarconfig="separate")
    assert np.allclose(read_micrograph(tmp_path / "m.tif").pixels, RECTANGLE[::-1] + 1)


def test_min_is_white_keeps_values_and_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", RECTANGLE.astype("u1"), photometric="miniswhite")
    micrograph = read_micrograph(tmp_path / "m.tif")
    assert np.array_equal(micrograph.pixels, RECTANGLE[::-1])
    assert "white" in micrograph.warnings[0]


def test_a_table_of_colours_keeps_values_and_says_so(tmp_path):
    colours = np.stack([np.arange(255, -1, -1) * 257] * 3).astype("u2")
    tifffile.imwrite(tmp_path / "m.tif", RECTANGLE.astype("u1"), photometric="palette", colormap=colours)
    micrograph = read_micrograph(tmp_path / "m.tif")
    assert np.array_equal(micrograph.pixels, RECTANGLE[::-1])
    assert "table of colours" in micrograph.warnings[0]


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_file_is_refused(tmp_path, compression):
    path = tmp_path / "m.tif"
    noise = np.random.default_rng(0).integers(0, 60000, (200, 300)).astype("u2")
    tifffile.imwrite(path, noise, compression=compression)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FormatError, match=r"m\.tif: (truncated|the TIFF file is damaged)"):
        read_micrograph(path)


def test_other_content_under_a_tiff_name_is_refused(tmp_path):
    write_mrc(tmp_path / "m.mrc", RECTANGLE.astype("f4"))
    (tmp_path / "m.mrc").rename(tmp_path / "m.tif")
    with pytest.raises(FormatError, match="expected a TIFF file"):
        read_micrograph(tmp_path / "m.tif")


def test_complex_pixels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((4, 6), "c8"))
    with pytest.raises(FormatError, match="complex64"):
        read_micrograph(tmp_path / "m.tif")


def test_stacks_and_other_types_are_not_written(tmp_path):
    with pytest.raises(SettingsError, match="2-D image"):
        write_tiff(tmp_path / "m.tif", np.zeros((2, 4, 6), "f4"))
    with pytest.raises(SettingsError, match="float64"):
        write_tiff(tmp_path / "m.tif", np.zeros((4, 6), "f8"))


@pytest.mark.relion
@needs_relion
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_relion_sees_our_tiff_and_our_mrc_as_the_same_image(tmp_path, dtype):
    write_micrograph(tmp_path / "m.tif", Micrograph(RECTANGLE.astype("f4")), dtype=dtype)
    write_mrc(tmp_path / "zero.mrc", np.zeros((36, 54), "f4"), pixel_size_angstrom=1.5)
    command = ["relion_image_handler", "--i", "zero.mrc", "--add", "m.tif", "--o", "out.mrc"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert np.array_equal(read_micrograph(tmp_path / "out.mrc").pixels, RECTANGLE)


@pytest.mark.relion
@needs_relion
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_we_see_the_tiff_that_relion_writes_as_the_mrc_it_came_from(tmp_path, dtype):
    write_mrc(tmp_path / "m.mrc", RECTANGLE.astype(dtype), pixel_size_angstrom=1.5)
    (tmp_path / "out").mkdir()
    command = ["relion_convert_to_tiff", "--i", "m.mrc", "--o", "out/"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert np.array_equal(read_micrograph(tmp_path / "out" / "m.tif").pixels, RECTANGLE)


def test_a_blank_compressed_image_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((2000, 3000), "u1"), compression="zstd")
    assert read_micrograph(tmp_path / "m.tif").shape_yx == (2000, 3000)


def test_pages_that_point_back_at_one_another_are_named_as_damage(tmp_path):
    path = tmp_path / "m.tif"
    with tifffile.TiffWriter(path) as writer:
        for _ in range(2):
            writer.write(np.ones((20, 30), "u1"), metadata=None)
    with tifffile.TiffFile(path) as file:
        first, second = (page.offset for page in file.pages)
        tag_count = len(file.pages[1].tags)
    content = bytearray(path.read_bytes())
    after_tags = second + 2 + 12 * tag_count  # where a page says where the next one is; 0 for none
    assert content[after_tags : after_tags + 4] == bytes(4)
    content[after_tags : after_tags + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(FormatError, match="points back"):
        probe_image(path)


NOISE = np.random.default_rng(0).normal(128, 20, (300, 400)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("compression", ["jpeg", "lzw"])
def test_damage_that_decoders_pass_over_is_refused(tmp_path, compression):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, NOISE, compression=compression, rowsperstrip=64)
    read_micrograph(path)
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[2] + 2000
    content = bytearray(path.read_bytes())
    content[start : start + 512] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(FormatError, match="damaged"):
        read_micrograph(path)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_bit_masks_are_read_as_stored(tmp_path, options, photometric):
    is_marked = np.add.outer(np.arange(50), np.arange(77)) % 5 == 0
    tifffile.imwrite(tmp_path / "m.tif", is_marked, photometric=photometric, **options)
    assert np.array_equal(read_micrograph(tmp_path / "m.tif").pixels[::-1] != 0, is_marked)


@pytest.mark.parametrize("compression", ["group4", "packbits", "tiff_lzw"])
def test_one_bit_masks_of_other_programs_are_read(tmp_path, compression):
    is_marked = np.add.outer(np.arange(50), np.arange(77)) % 5 == 0
    Image.fromarray(is_marked).save(tmp_path / "m.tif", compression=compression)
    assert np.array_equal(read_micrograph(tmp_path / "m.tif").pixels[::-1] != 0, is_marked)


def test_truncated_one_bit_masks_are_still_refused(tmp_path):
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.ones((50, 77), bool))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="truncated"):
        read_micrograph(path)


def test_a_small_file_of_a_huge_blank_image_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "m.tif"
    rows = np.zeros((16384 // 8, 16384), np.uint8)
    tifffile.imwrite(path, rows, compression="zlib", rowsperstrip=len(rows))
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["ImageLength"].valueoffset
    content[place : place + 4] = (16384).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"cannot hold the 268,435,456 pixels"):
        read_micrograph(path)


def test_a_page_of_very_many_channels_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((4, 5, 9), "u1"), photometric="minisblack", planarconfig="contig")
    with pytest.raises(FormatError, match=r"holds 9|expected one image"):
        read_micrograph(tmp_path / "m.tif")
