"""Pictures of every level, layers, and the cache that holds them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cryopick.io.images.mrc import write_mrc
from cryopick.viewer.pictures import TILE_PX, Band, Cache, Pictures, area_mean, base_level, to_grey
from cryopick.viewer.sources import PicksSource, RunSource


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (1, 5), (33, 17)])
@pytest.mark.parametrize("level", [0, 1, 3])
def test_a_level_is_the_mean_over_blocks_of_the_image_continued_by_its_edge(shape: tuple[int, int], level: int):
    pixels = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    found = area_mean(pixels, level)
    block = 2**level
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            rows = np.minimum(np.arange(row * block, (row + 1) * block), shape[0] - 1)
            columns = np.minimum(np.arange(column * block, (column + 1) * block), shape[1] - 1)
            assert found[row, column] == pytest.approx(pixels[np.ix_(rows, columns)].mean(), abs=1e-5)
    assert found.shape == (-(-shape[0] // block), -(-shape[1] // block))


@pytest.fixture
def large(tmp_path: Path) -> Pictures:
    """2500 x 4100, so that there is one finer level than the base and tiles at both far edges are cut."""
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.normal(0, 1, (250, 410)).astype(np.float32), (4100, 2500))
    write_mrc(tmp_path / "large.mrc", pixels, pixel_size_angstrom=1.0)
    (tmp_path / "picks.csv").write_text("x,y,diameter\n2000,1000,150\n")
    picks = tmp_path / "large.csv"
    (tmp_path / "picks.csv").rename(picks)
    return Pictures([PicksSource(picks, [str(tmp_path / "large.mrc")])], most_bytes=1 << 28)


def test_tiles_put_side_by_side_are_the_level_in_one_piece(large: Pictures):
    assert base_level((2500, 4100)) == 2
    one = decoded(large.base(0, 0, "raw"))
    assert one.shape == (625, 1025)
    for level in (0, 1):
        whole = to_grey(area_mean(large._pixels(0, 0), level))
        rows, columns = -(-whole.shape[0] // TILE_PX), -(-whole.shape[1] // TILE_PX)
        tiles = [[decoded(large.tile(0, 0, level, c, r) or b"") for c in range(columns)] for r in range(rows)]
        joined = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
        assert joined.shape == whole.shape == (2500 >> level, 4100 >> level)
        assert np.abs(joined.astype(int) - whole).mean() < 2.5
        assert large.tile(0, 0, level, columns, 0) is None
    assert large.tile(0, 0, 2, 0, 0) is None  # the base is not made of tiles


def test_a_band_lets_through_what_lies_in_it_and_nothing_else(tmp_path: Path):
    x = np.arange(1024, dtype=np.float32)
    row = np.sin(2 * np.pi * x / 8) + np.sin(2 * np.pi * x / 64) + 3 * np.sin(2 * np.pi * x / 1024)
    noise = np.random.default_rng(0).normal(0, 0.01, (1024, 1024))
    write_mrc(tmp_path / "waves.mrc", (row + noise).astype(np.float32), pixel_size_angstrom=1.0)
    (tmp_path / "waves.csv").write_text("x,y,diameter\n500,500,60\n")
    pictures = Pictures([PicksSource(tmp_path / "waves.csv", [str(tmp_path / "waves.mrc")])], most_bytes=1 << 28)
    plane = pictures._plane(0, 0, "band", Band(24.0, 200.0)).astype(float)
    power = np.abs(np.fft.rfft(plane.mean(axis=0) - plane.mean())) ** 2
    waves = 1024 / np.arange(1, len(power))
    share = power[1:][(waves > 55) & (waves < 75)].sum() / power[1:].sum()
    assert share > 0.9


@pytest.mark.parametrize("pixels", [np.full((40, 30), 7.0), np.full((1, 1), 2.0), np.full((20, 20), np.nan)])
def test_flat_one_pixel_and_nan_micrographs_have_pictures(tmp_path: Path, pixels: np.ndarray):
    write_mrc(tmp_path / "flat.mrc", pixels.astype(np.float32), pixel_size_angstrom=1.0)
    (tmp_path / "flat.csv").write_text("x,y,diameter\n0,0,10\n")
    pictures = Pictures([PicksSource(tmp_path / "flat.csv", [str(tmp_path / "flat.mrc")])], most_bytes=1 << 20)
    for layer in ("raw", "band", "denoised"):
        assert decoded(pictures.base(0, 0, layer)).size
    assert max(decoded(pictures.thumb(0, 0)).shape) == 96


def test_a_replaced_file_is_another_picture(run: Path):
    source = RunSource(run)
    pictures = Pictures([source], most_bytes=1 << 26)
    before = pictures.base(0, 0, "raw")
    original = source.rows[0].source
    kept, times = original.read_bytes(), original.stat()
    try:
        write_mrc(
            original, np.random.default_rng(9).normal(0, 1, (120, 160)).astype(np.float32), pixel_size_angstrom=2.0
        )
        assert pictures.base(0, 0, "raw") != before
        assert source.has_changed(0)
    finally:
        import os

        original.write_bytes(kept)
        os.utime(original, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_cache_keeps_to_its_size_and_forgets_the_least_recently_used():
    cache = Cache(100)
    made: list[str] = []

    def make(name: str) -> bytes:
        made.append(name)
        return bytes(40)

    for name in "abacab":
        cache.get(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "b"]


def test_a_slow_picture_stops_no_other_and_is_made_once():
    cache, made, release = Cache(1000), [], threading.Event()

    def slow() -> bytes:
        made.append(1)
        cache.get("inner", lambda: b"a picture that asks for another")
        release.wait(5)
        return b"slow"

    threads = [threading.Thread(target=lambda: cache.get("slow", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    assert cache.get("other", lambda: b"quick") == b"quick"
    assert time.monotonic() - start < 2
    release.set()
    for thread in threads:
        thread.join(5)
    assert len(made) == 1
