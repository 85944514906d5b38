"""Whatever the bytes, a reader answers with an image or with one of our own errors."""

import gzip

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryopick.errors import CryopickError
from cryopick.io.images.micrographs import probe_image, read_micrograph
from cryopick.io.images.mrc import read_mrc_stack, write_mrc

SUFFIXES = [".mrc", ".mrc.gz", ".mrc.bz2", ".tif", ".png", ".jpg", ".eer"]
MAGICS = [
    b"",
    b"II*\0",
    b"MM\0*",
    b"II+\0\x08\0\0\0",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"\x1f\x8b\x08",
    b"BZh9",
]
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def _samples(folder):
    """One valid file per kind, a few hundred bytes each."""
    pixels = (np.arange(12 * 17).reshape(12, 17) * 5 % 200).astype("u1")
    write_mrc(folder / "a.mrc", pixels.astype("i2"), pixel_size_angstrom=1.5)
    (folder / "b.mrc.gz").write_bytes(gzip.compress((folder / "a.mrc").read_bytes()))
    tifffile.imwrite(folder / "c.tif", pixels)
    tifffile.imwrite(folder / "d.tif", pixels, compression="lzw", bigtiff=True)
    tifffile.imwrite(folder / "e.tif", np.stack([pixels] * 3), imagej=True)
    colour = np.stack([pixels] * 3, axis=-1)
    tifffile.imwrite(folder / "f.tif", colour, compression="zlib", tile=(16, 16), photometric="rgb")
    cv2.imwrite(str(folder / "g.png"), pixels)
    cv2.imwrite(str(folder / "h.jpg"), pixels)
    cv2.imwrite(str(folder / "i.jpg"), colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return _samples(tmp_path_factory.mktemp("samples"))


def _must_answer(path):
    """Read by every entry: only our errors may come out, naming the file, and an image read has the probed shape."""
    probed, error = _answer(probe_image, path)
    assert probed is None or min(probed.shape_yx) > 0
    assert error is None or str(path) in error
    micrograph, error = _answer(read_micrograph, path)
    assert micrograph is None or micrograph.shape_yx == probed.shape_yx
    assert error is None or str(path) in error
    if path.name.endswith(".mrc"):
        stack, error = _answer(read_mrc_stack, path)
        assert stack is None or stack[0].ndim == 3
        assert error is None or str(path) in error


def _answer(read, path):
    try:
        return read(path), None
    except CryopickError as error:
        return None, str(error)


@FUZZ
@given(suffix=st.sampled_from(SUFFIXES), magic=st.sampled_from(MAGICS), content=st.binary(max_size=2000))
def test_random_bytes_give_an_image_or_a_documented_error(tmp_path, suffix, magic, content):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(magic + content)
    _must_answer(path)


@FUZZ
@given(data=st.data())
def test_truncated_files_give_a_documented_error(tmp_path, samples, data):
    name = data.draw(st.sampled_from(sorted(samples)))
    content = samples[name]
    path = tmp_path / name
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    _must_answer(path)


@settings(FUZZ, max_examples=400)
@given(data=st.data())
def test_files_with_changed_bytes_give_an_image_or_a_documented_error(tmp_path, samples, data):
    name = data.draw(st.sampled_from(sorted(samples)))
    content = bytearray(samples[name])
    for _ in range(data.draw(st.integers(1, 6))):
        # Headers hold the dangerous numbers, so half of the changes go there
        last = len(content) - 1
        place = data.draw(st.one_of(st.integers(0, min(255, last)), st.integers(0, last)))
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255, data.draw(st.integers(0, 255))]))
    path = tmp_path / name
    path.write_bytes(content)
    _must_answer(path)


@FUZZ
@given(data=st.data())
def test_files_with_bytes_inserted_or_removed_give_an_image_or_a_documented_error(tmp_path, samples, data):
    name = data.draw(st.sampled_from(sorted(samples)))
    content = samples[name]
    start = data.draw(st.integers(0, len(content)))
    end = min(len(content), start + data.draw(st.integers(0, 40)))
    path = tmp_path / name
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=40)) + content[end:])
    _must_answer(path)
