"""PNG and JPEG micrographs: arrays made by hand, files cut and changed."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cryopick.errors import FormatError, OutputError, SettingsError
from cryopick.io.files.reading import caught_native_errors
from cryopick.io.images.micrographs import probe_image, read_micrograph
from cryopick.io.images.raster import write_jpeg, write_png

RECTANGLE = (np.arange(36 * 54).reshape(36, 54) * 7) % 250
SMOOTH = np.add.outer(np.arange(64) * 2, np.arange(96)).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_round_trip_is_exact_and_not_flipped(tmp_path, dtype):
    pixels = RECTANGLE.astype(dtype) * (1 if dtype == "uint8" else 200)
    write_png(tmp_path / "m.png", pixels)
    micrograph = read_micrograph(tmp_path / "m.png")
    assert np.array_equal(micrograph.pixels, pixels)
    assert micrograph.warnings == ()
    info = probe_image(tmp_path / "m.png")
    assert (info.format, info.shape_yx, info.dtype, info.kind) == ("PNG", (36, 54), dtype, "image")


def test_png_rows_are_those_of_a_file_assembled_by_hand(tmp_path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(row) for row in ([1, 2, 3], [4, 5, 6]))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0))
    (tmp_path / "m.png").write_bytes(content + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert read_micrograph(tmp_path / "m.png").pixels.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_jpeg_round_trip_is_close_and_not_flipped(tmp_path):
    write_jpeg(tmp_path / "m.jpg", SMOOTH)
    micrograph = read_micrograph(tmp_path / "m.jpg")
    assert micrograph.shape_yx == (64, 96)
    assert np.abs(micrograph.pixels - SMOOTH).max() <= 3
    assert probe_image(tmp_path / "m.jpg").shape_yx == (64, 96)


def test_progressive_jpeg_is_read(tmp_path):
    _, encoded = cv2.imencode(".jpg", SMOOTH, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    (tmp_path / "m.jpeg").write_bytes(encoded.tobytes())
    assert np.abs(read_micrograph(tmp_path / "m.jpeg").pixels - SMOOTH).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_equal_colour_channels_are_grey_without_a_warning(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    cv2.imwrite(str(path), np.stack([SMOOTH] * 3, axis=-1))
    micrograph = read_micrograph(path)
    assert np.abs(micrograph.pixels - SMOOTH).max() <= (0 if suffix == ".png" else 3)
    assert micrograph.warnings == ()


def test_colours_are_averaged_with_a_warning(tmp_path):
    cv2.imwrite(str(tmp_path / "m.png"), np.stack([SMOOTH, SMOOTH, SMOOTH + 3], axis=-1))
    micrograph = read_micrograph(tmp_path / "m.png")
    assert np.allclose(micrograph.pixels, SMOOTH.astype(float) + 1)
    assert "colour" in micrograph.warnings[0]


def test_transparency_that_varies_is_mentioned_and_ignored(tmp_path):
    alpha = np.full_like(SMOOTH, 255)
    cv2.imwrite(str(tmp_path / "opaque.png"), np.stack([SMOOTH] * 3 + [alpha], axis=-1))
    assert read_micrograph(tmp_path / "opaque.png").warnings == ()
    alpha[3, 4] = 0
    cv2.imwrite(str(tmp_path / "m.png"), np.stack([SMOOTH] * 3 + [alpha], axis=-1))
    micrograph = read_micrograph(tmp_path / "m.png")
    assert np.array_equal(micrograph.pixels, SMOOTH)
    assert "transparency" in micrograph.warnings[0]


def test_exif_orientation_does_not_turn_the_image(tmp_path):
    _, encoded = cv2.imencode(".jpg", SMOOTH)
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    content = encoded.tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    (tmp_path / "m.jpg").write_bytes(content[:2] + segment + content[2:])
    assert read_micrograph(tmp_path / "m.jpg").shape_yx == (64, 96)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused_instead_of_filled(tmp_path, suffix, kept):
    path = tmp_path / f"m{suffix}"
    _, encoded = cv2.imencode(suffix, np.random.default_rng(0).integers(0, 255, (100, 150)).astype(np.uint8))
    path.write_bytes(encoded.tobytes()[: int(kept * len(encoded))])
    with pytest.raises(FormatError, match="truncated"):
        read_micrograph(path)


def test_changed_byte_in_a_png_fails_its_checksum(tmp_path):
    write_png(tmp_path / "m.png", RECTANGLE.astype("u1"))
    content = bytearray((tmp_path / "m.png").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(FormatError, match="checksum"):
        read_micrograph(tmp_path / "m.png")


def test_png_may_be_named_jpg_but_nothing_else_may(tmp_path):
    write_png(tmp_path / "m.png", RECTANGLE.astype("u1"))
    (tmp_path / "m.png").rename(tmp_path / "m.jpg")
    assert np.array_equal(read_micrograph(tmp_path / "m.jpg").pixels, RECTANGLE)
    (tmp_path / "n.jpg").write_bytes(b"GIF89a" + b"\0" * 100)
    with pytest.raises(FormatError, match="expected a PNG or JPEG"):
        read_micrograph(tmp_path / "n.jpg")


def test_types_and_shapes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="uint8 or uint16"):
        write_png(tmp_path / "m.png", np.zeros((3, 4), "f4"))
    with pytest.raises(SettingsError, match="uint8"):
        write_jpeg(tmp_path / "m.jpg", np.zeros((3, 4), "u2"))
    with pytest.raises(SettingsError, match="1 to 100"):
        write_jpeg(tmp_path / "m.jpg", SMOOTH, quality=0)
    with pytest.raises(SettingsError, match="cannot be written as"):
        write_jpeg(tmp_path / "m.jpg", np.zeros((1, 70000), "u1"))
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match="folder of that name"):
        write_png(tmp_path / "d.png", SMOOTH)


def test_a_header_that_announces_more_pixels_than_the_bytes_hold_is_refused_before_decoding(tmp_path):
    write_jpeg(tmp_path / "m.jpg", SMOOTH)
    content = bytearray((tmp_path / "m.jpg").read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", 30000, 30000)
    (tmp_path / "m.jpg").write_bytes(content)
    with pytest.raises(FormatError, match=r"30000 x 30000 pixels, which \d+ bytes cannot hold"):
        read_micrograph(tmp_path / "m.jpg")


NOISE = np.random.default_rng(0).normal(128, 20, (400, 600)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("damage", ["a sector of zeros", "a hole"])
@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_OPTIMIZE, 1]])
def test_jpeg_data_that_the_decoder_fills_with_guesses_are_refused(tmp_path, capfd, damage, options):
    content = bytearray(cv2.imencode(".jpg", NOISE, options)[1].tobytes())
    middle = len(content) // 2
    if damage == "a hole":
        del content[middle : middle + 700]
    else:
        content[middle : middle + 512] = bytes(512)
    (tmp_path / "m.jpg").write_bytes(content)
    with pytest.raises(FormatError, match=r"JPEG data are damaged .*copy it again"):
        read_micrograph(tmp_path / "m.jpg")
    assert capfd.readouterr().err == ""


def test_what_others_print_while_a_picture_is_decoded_still_appears(capfd):
    with caught_native_errors(lambda line: line.startswith("Corrupt")) as caught:
        os.write(2, b"Corrupt JPEG data: 7 extraneous bytes\nprogress 50 %\n")
    assert caught == ["Corrupt JPEG data: 7 extraneous bytes\n"]
    assert capfd.readouterr().err == "progress 50 %\n"


def test_a_one_bit_png_mask_is_read(tmp_path):
    is_marked = np.add.outer(np.arange(20), np.arange(37)) % 5 == 0
    Image.fromarray(is_marked).save(tmp_path / "m.png")
    assert np.array_equal(read_micrograph(tmp_path / "m.png").pixels != 0, is_marked)


def test_a_small_png_of_a_huge_blank_image_is_refused_before_memory_is_taken(tmp_path):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes((1 + 2048) * 16384), 9)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16384, 16384, 1, 0, 0, 0, 0))
    (tmp_path / "m.png").write_bytes(content + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    with pytest.raises(FormatError, match="unless they are blank"):
        read_micrograph(tmp_path / "m.png")
