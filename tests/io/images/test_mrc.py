"""MRC files against mrcfile, RELION and headers packed by hand."""

import bz2
import gzip
import os
import shutil
import struct
import subprocess
import warnings

import mrcfile
import numpy as np
import pytest

from cryopick.errors import FormatError, InputError, OutputError, SettingsError
from cryopick.io.images.micrographs import probe_image, read_micrograph
from cryopick.io.images.mrc import read_mrc_image, read_mrc_stack, write_mrc

RECTANGLE = np.arange(6 * 9).reshape(6, 9) % 120


def _header(columns, rows, sections, mode, *, order="<", nsymbt=0, stamp=b"\x44\x44\x00\x00", angstrom=0.0):
    raw = bytearray(1024)
    struct.pack_into(order + "4i", raw, 0, columns, rows, sections, mode)
    struct.pack_into(order + "3i", raw, 28, columns, rows, 1)
    struct.pack_into(order + "3f", raw, 40, columns * angstrom, rows * angstrom, angstrom)
    struct.pack_into(order + "i", raw, 92, nsymbt)
    raw[208:212] = b"MAP "
    raw[212:216] = stamp
    return bytes(raw)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_mrcfile_reads_what_we_write_and_calls_it_valid(tmp_path, dtype):
    pixels = RECTANGLE.astype(dtype)
    path = tmp_path / "m.mrc"
    write_mrc(path, pixels, pixel_size_angstrom=1.77)
    with mrcfile.open(path) as file:
        assert file.data.dtype == np.dtype(dtype)
        assert np.array_equal(file.data, pixels)
        assert float(file.voxel_size.x) == pytest.approx(1.77)
        assert float(file.header.dmax) == pixels.max()
        assert float(file.header.rms) == pytest.approx(pixels.astype(float).std(), rel=1e-5)
    assert mrcfile.validate(str(path))


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_we_read_what_mrcfile_writes(tmp_path, dtype):
    pixels = RECTANGLE.astype(dtype)
    with mrcfile.new(tmp_path / "m.mrc") as file:
        file.set_data(pixels)
        file.voxel_size = 0.83
    micrograph = read_micrograph(tmp_path / "m.mrc")
    assert np.array_equal(micrograph.pixels, pixels)
    assert micrograph.pixel_size_angstrom == 0.83
    assert micrograph.warnings == ()


@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
def test_big_endian_files_read_as_little_endian_ones(tmp_path, mode):
    dtype = np.dtype({0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}[mode]).newbyteorder(">")
    path = tmp_path / "m.mrc"
    head = _header(9, 6, 1, mode, order=">", stamp=b"\x11\x11\x00\x00", angstrom=2.5)
    path.write_bytes(head + RECTANGLE.astype(dtype).tobytes())
    micrograph = read_micrograph(path)
    assert np.array_equal(micrograph.pixels, RECTANGLE)
    assert micrograph.pixel_size_angstrom == 2.5


@pytest.mark.parametrize("stamp", [b"\0\0\0\0", b"\x11\x11\0\0", b"junk"])
def test_wrong_machine_stamp_and_missing_map_word_are_forgiven(tmp_path, stamp):
    head = bytearray(_header(9, 6, 1, 1, stamp=stamp))
    head[208:212] = b"\0\0\0\0"
    path = tmp_path / "m.mrc"
    path.write_bytes(bytes(head) + RECTANGLE.astype("<i2").tobytes())
    assert np.array_equal(read_micrograph(path).pixels, RECTANGLE)


@pytest.mark.parametrize("nsymbt", [0, 4, 13, 1024])
@pytest.mark.parametrize("packed", ["", ".gz", ".bz2"])
def test_extended_header_of_any_length_is_stepped_over(tmp_path, nsymbt, packed):
    content = _header(9, 6, 1, 2, nsymbt=nsymbt) + b"\xff" * nsymbt + RECTANGLE.astype("<f4").tobytes()
    compress = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[packed]
    path = tmp_path / f"m.mrc{packed}"
    path.write_bytes(compress(content))
    assert np.array_equal(read_micrograph(path).pixels, RECTANGLE)


@pytest.mark.parametrize(("columns", "rows"), [(8, 6), (9, 6), (9, 5)])
def test_packed_four_bit_rows_start_on_whole_bytes_with_the_low_half_first(tmp_path, columns, rows):
    pixels = np.arange(rows * columns).reshape(rows, columns) % 16
    padded = np.pad(pixels, ((0, 0), (0, columns % 2)))
    raw = (padded[:, 0::2] | padded[:, 1::2] << 4).astype(np.uint8)
    path = tmp_path / "m.mrc"
    path.write_bytes(_header(columns, rows, 1, 101) + raw.tobytes())
    assert np.array_equal(read_micrograph(path).pixels, pixels)
    assert probe_image(path).dtype == "uint4"


def test_four_bit_rows_packed_without_gaps_are_known_by_the_file_size(tmp_path):
    pixels = np.arange(54).reshape(6, 9) % 16
    flat = pixels.ravel()
    path = tmp_path / "m.mrc"
    path.write_bytes(_header(9, 6, 1, 101) + (flat[0::2] | flat[1::2] << 4).astype(np.uint8).tobytes())
    assert np.array_equal(read_micrograph(path).pixels, pixels)


def test_bytes_marked_unsigned_by_imod_are_read_unsigned_with_a_warning(tmp_path):
    head = bytearray(_header(9, 6, 1, 0))
    struct.pack_into("<2i", head, 152, 1146047817, 0)
    pixels = (RECTANGLE + 130).astype(np.uint8)
    path = tmp_path / "m.mrc"
    path.write_bytes(bytes(head) + pixels.tobytes())
    micrograph = read_micrograph(path)
    assert np.array_equal(micrograph.pixels, pixels)
    assert "unsigned" in micrograph.warnings[0]


def test_truncated_file_names_expected_and_actual_bytes(tmp_path):
    path = tmp_path / "m.mrc"
    write_mrc(path, RECTANGLE.astype("f4"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"m\.mrc: truncated.*expected 1240 bytes.*holds 1230"):
        read_micrograph(path)


def test_truncated_header_names_expected_and_actual_bytes(tmp_path):
    (tmp_path / "m.mrc").write_bytes(b"\1" * 100)
    with pytest.raises(FormatError, match="1024 bytes, the file holds 100"):
        read_micrograph(tmp_path / "m.mrc")


@pytest.mark.parametrize("packed", [".gz", ".bz2"])
def test_truncated_compressed_file_is_a_format_error(tmp_path, packed):
    path = tmp_path / f"m.mrc{packed}"
    write_mrc(path, np.random.default_rng(0).normal(size=(60, 90)).astype("f4"))
    content = path.read_bytes()
    for cut in (5, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(FormatError, match=r"damaged|truncated|holds"):
            read_micrograph(path)


def test_header_inside_compression_that_announces_too_much_is_truncated(tmp_path):
    path = tmp_path / "m.mrc.gz"
    path.write_bytes(gzip.compress(_header(30000, 30000, 1, 2) + b"\0" * 100))
    with pytest.raises(FormatError, match="truncated"):
        read_micrograph(path)


def test_bytes_after_the_pixels_are_reported(tmp_path):
    path = tmp_path / "m.mrc"
    write_mrc(path, RECTANGLE.astype("f4"))
    with path.open("ab") as file:
        file.write(b"\0" * 216)
    micrograph = read_micrograph(path)
    assert np.array_equal(micrograph.pixels, RECTANGLE)
    assert any("216 or more bytes follow" in warning for warning in micrograph.warnings)


@pytest.mark.parametrize(("columns", "rows", "mode"), [(0, 6, 2), (-9, 6, 2), (9, 6, 99), (9, 6, -1)])
def test_impossible_headers_are_refused(tmp_path, columns, rows, mode):
    path = tmp_path / "m.mrc"
    path.write_bytes(_header(columns, rows, 1, mode) + b"\0" * 216)
    with pytest.raises(FormatError, match="header is damaged"):
        read_micrograph(path)


def test_fourier_transforms_are_refused_by_name(tmp_path):
    path = tmp_path / "m.mrc"
    path.write_bytes(_header(9, 6, 1, 4) + b"\0" * 432)
    with pytest.raises(FormatError, match="Fourier transform"):
        read_micrograph(path)


def test_negative_extended_header_is_refused(tmp_path):
    path = tmp_path / "m.mrc"
    path.write_bytes(_header(9, 6, 1, 2, nsymbt=-4) + b"\0" * 216)
    with pytest.raises(FormatError, match="-4 bytes"):
        read_micrograph(path)


def test_stack_of_one_is_an_image_and_of_more_is_refused_with_a_remedy(tmp_path):
    write_mrc(tmp_path / "one.mrcs", RECTANGLE[None].astype("f4"))
    assert np.array_equal(read_micrograph(tmp_path / "one.mrcs").pixels, RECTANGLE)
    write_mrc(tmp_path / "movie.mrc", np.zeros((3, 6, 9), "i2"))
    with pytest.raises(FormatError, match=r"3 frames of 9 x 6.*motion-corrected.*align and sum"):
        read_micrograph(tmp_path / "movie.mrc")
    info = probe_image(tmp_path / "movie.mrc")
    assert (info.kind, info.n_frames, info.shape_yx) == ("stack", 3, (6, 9))


def test_three_dimensional_map_is_refused_as_such(tmp_path):
    write_mrc(tmp_path / "map.mrc", np.zeros((8, 8, 8), "f4"), pixel_size_angstrom=2.0, is_volume=True)
    with pytest.raises(FormatError, match="3-D map of 8 x 8 x 8"):
        read_micrograph(tmp_path / "map.mrc")


def test_stacks_read_back_section_by_section_with_their_pixel_size(tmp_path):
    stack = np.random.default_rng(1).normal(size=(4, 6, 9)).astype("f4")
    write_mrc(tmp_path / "s.mrcs", stack, pixel_size_angstrom=3.3)
    read, angstrom = read_mrc_stack(tmp_path / "s.mrcs")
    assert np.array_equal(read, stack)
    assert angstrom == 3.3
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        assert file.is_image_stack()


@pytest.mark.parametrize("angstrom", [-1.0, np.nan, np.inf])
def test_impossible_pixel_sizes_are_not_written(tmp_path, angstrom):
    with pytest.raises(SettingsError, match="pixel size"):
        write_mrc(tmp_path / "m.mrc", RECTANGLE.astype("f4"), pixel_size_angstrom=angstrom)


def test_types_that_mrc_lacks_are_refused_not_converted(tmp_path):
    with pytest.raises(SettingsError, match="uint8"):
        write_mrc(tmp_path / "m.mrc", np.zeros((3, 4), "u1"))
    with pytest.raises(SettingsError, match="shape"):
        write_mrc(tmp_path / "m.mrc", np.zeros((0, 4), "f4"))
    assert list(tmp_path.iterdir()) == []


def test_non_finite_pixels_are_written_with_undetermined_statistics(tmp_path):
    pixels = np.array([[np.nan, 1, 2], [3, np.inf, 5]], "f4")
    write_mrc(tmp_path / "m.mrc", pixels)
    assert np.array_equal(read_mrc_image(tmp_path / "m.mrc").pixels, pixels, equal_nan=True)
    with warnings.catch_warnings(), mrcfile.open(tmp_path / "m.mrc") as file:
        assert file.header.dmax < file.header.dmin


def test_missing_empty_and_folder_paths_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_micrograph(tmp_path / "none.mrc")
    (tmp_path / "empty.mrc").touch()
    with pytest.raises(FormatError, match=r"empty \(0 bytes\)"):
        read_micrograph(tmp_path / "empty.mrc")
    (tmp_path / "folder.mrc").mkdir()
    with pytest.raises(InputError, match="this is a folder"):
        read_micrograph(tmp_path / "folder.mrc")
    with pytest.raises(OutputError, match="a folder of that name"):
        write_mrc(tmp_path / "folder.mrc", RECTANGLE.astype("f4"))


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.mrc")
    with pytest.raises(InputError, match="device or a pipe"):
        read_micrograph(tmp_path / "p.mrc")


def test_missing_read_permission_is_named(open_folder, as_nobody):
    path = open_folder / "m.mrc"
    write_mrc(path, RECTANGLE.astype("f4"))
    path.chmod(0)
    with pytest.raises(InputError, match="no permission to read"):
        read_micrograph(path)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not installed")
@pytest.mark.parametrize("kind", ["int8", "int16", "uint16", "float32", "4-bit"])
def test_relion_reads_the_same_pixels(tmp_path, kind):
    pixels = (np.arange(36 * 54).reshape(36, 54) * 7) % 16
    if kind == "4-bit":
        halves = pixels.reshape(-1, 2)
        packed = (halves[:, 0] | halves[:, 1] << 4).astype(np.uint8)
        (tmp_path / "m.mrc").write_bytes(_header(54, 36, 1, 101, angstrom=1.5) + packed.tobytes())
    else:
        write_mrc(tmp_path / "m.mrc", pixels.astype(kind), pixel_size_angstrom=1.5)
    command = ["relion_image_handler", "--i", "m.mrc", "--o", "out.mrc", "--add_constant", "1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    ours, theirs = read_micrograph(tmp_path / "m.mrc"), read_micrograph(tmp_path / "out.mrc")
    assert np.array_equal(ours.pixels, pixels)
    assert np.array_equal(theirs.pixels, pixels + 1)
    assert theirs.pixel_size_angstrom == ours.pixel_size_angstrom == 1.5


def _with_range(path, low, high):
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3f", raw, 76, low, high, (low + high) / 2)
    path.write_bytes(raw)


@pytest.mark.parametrize(("stored", "meant"), [("int8", "uint8"), ("int16", "uint16"), ("uint16", "int16")])
@pytest.mark.parametrize("says", ["the header", "nothing"])
def test_integers_of_the_wrong_sign_are_read_as_they_were_meant_and_said_to_be(tmp_path, stored, meant, says):
    middle = 0 if meant == "int16" else np.iinfo(meant).max // 2 + 1
    spread = np.iinfo(meant).max // 12
    pixels = np.random.default_rng(0).normal(middle, spread, (64, 96)).round().astype(meant)
    write_mrc(tmp_path / "m.mrc", pixels.view(stored))
    _with_range(tmp_path / "m.mrc", *((pixels.min(), pixels.max()) if says == "the header" else (0, 0)))
    micrograph = read_micrograph(tmp_path / "m.mrc")
    assert np.array_equal(micrograph.pixels, pixels)
    assert f"read as {meant}" in " ".join(micrograph.warnings)


@pytest.mark.parametrize("stored", ["int8", "int16", "uint16"])
@pytest.mark.parametrize("header_range", [None, (0, 0), (-5, 12)])
def test_integers_of_the_right_sign_stay_so_whatever_an_old_header_says(tmp_path, stored, header_range):
    middle = 0 if stored.startswith("i") else 33000
    pixels = np.random.default_rng(0).normal(middle, np.iinfo(stored).max // 12, (64, 96)).round().astype(stored)
    write_mrc(tmp_path / "m.mrc", pixels)
    if header_range is not None:
        _with_range(tmp_path / "m.mrc", *header_range)
    micrograph = read_micrograph(tmp_path / "m.mrc")
    assert np.array_equal(micrograph.pixels, pixels)
    assert "read as" not in " ".join(micrograph.warnings)


def test_bytes_whose_sign_nothing_tells_are_read_by_the_standard_with_a_word(tmp_path):
    pixels = np.random.default_rng(0).integers(-128, 128, (64, 96)).astype("int8")
    write_mrc(tmp_path / "m.mrc", pixels)
    _with_range(tmp_path / "m.mrc", 0, 0)
    micrograph = read_micrograph(tmp_path / "m.mrc")
    assert np.array_equal(micrograph.pixels, pixels)
    assert "cannot be told" in " ".join(micrograph.warnings)


def test_masks_of_two_values_are_not_taken_for_bytes_of_the_wrong_sign(tmp_path):
    pixels = np.where(np.arange(96) < 48, -128, 127).astype("int8")[None].repeat(64, axis=0)
    write_mrc(tmp_path / "m.mrc", pixels)
    _with_range(tmp_path / "m.mrc", 0, 0)
    assert np.array_equal(read_micrograph(tmp_path / "m.mrc").pixels, pixels)


@pytest.mark.parametrize("packed", ["gz", "bz2"])
def test_a_few_bytes_that_would_unpack_to_a_huge_image_are_refused_before_they_do(tmp_path, packed):
    path = tmp_path / f"m.mrc.{packed}"
    compress = gzip.compress if packed == "gz" else bz2.compress
    path.write_bytes(compress(_header(12000, 12000, 1, 2) + bytes(1 << 20)))
    with pytest.raises(FormatError, match="cannot hold the 144,000,000 pixels"):
        read_micrograph(path)
    path.write_bytes(compress(_header(12000, 1, 12000, 2) + bytes(1 << 20)))
    with pytest.raises(FormatError, match="cannot hold the 144,000,000 pixels"):
        read_mrc_stack(path)


def test_the_largest_image_that_is_read_is_the_users_choice(tmp_path):
    write_mrc(tmp_path / "m.mrc", np.zeros((64, 96), "i1"))
    assert read_micrograph(tmp_path / "m.mrc", max_pixels=64 * 96).shape_yx == (64, 96)
    with pytest.raises(FormatError, match=r"6,144 pixels, more than the 6,143 .* --max-pixels"):
        read_micrograph(tmp_path / "m.mrc", max_pixels=64 * 96 - 1)


@pytest.mark.parametrize(("axes", "is_told"), [((1, 2, 3), False), ((0, 0, 0), False), ((2, 1, 3), True)])
def test_exchanged_rows_and_columns_are_told(tmp_path, axes, is_told):
    path = tmp_path / "m.mrc"
    write_mrc(path, np.arange(12, dtype=np.float32).reshape(3, 4), pixel_size_angstrom=1.5)
    content = bytearray(path.read_bytes())
    content[64:76] = np.array(axes, dtype="<i4").tobytes()
    path.write_bytes(content)
    micrograph = read_micrograph(path)
    assert micrograph.pixels.shape == (3, 4)
    assert any("exchanged" in warning for warning in micrograph.warnings) == is_told
