"""Density maps: round trip and every way in which a map can be unusable."""

import gzip
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryopick.errors import FormatError, InputError
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.types import Volume


def write_raw(path: Path, data: np.ndarray, voxel: float | tuple[float, float, float]) -> Path:
    with mrcfile.new(path) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = voxel
    return path


def test_map_survives_the_round_trip(tmp_path: Path) -> None:
    density = np.random.default_rng(0).normal(size=(6, 6, 6)).astype(np.float32)
    write_volume(tmp_path / "map.mrc", Volume(density, 1.35))
    volume = read_volume(tmp_path / "map.mrc")
    np.testing.assert_array_equal(volume.density, density)
    assert volume.voxel_size_angstrom == pytest.approx(1.35, rel=1e-6)
    assert volume.name == "map"


def test_given_voxel_size_overrides_the_header(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.zeros((4, 4, 4), np.float32), 0.0)
    assert read_volume(path, voxel_size_angstrom=2.5).voxel_size_angstrom == 2.5


def test_integer_maps_become_float(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.arange(27, dtype=np.int16).reshape(3, 3, 3), 1.0)
    volume = read_volume(path)
    assert volume.density.dtype == np.float32
    assert volume.density[2, 1, 0] == 21


def test_other_axis_orders_become_z_y_x(tmp_path: Path) -> None:
    density = np.arange(64, dtype=np.float32).reshape(4, 4, 4)  # [z, y, x]
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(np.ascontiguousarray(density.transpose(2, 0, 1)))  # sections x, rows z, columns y
        mrc.voxel_size = 1.0
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = 2, 3, 1
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mrc").density, density)


def test_map_without_voxel_size_is_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.zeros((4, 4, 4), np.float32), 0.0)
    with pytest.raises(InputError, match=r"a\.mrc: the header holds no voxel size; give it"):
        read_volume(path)


def test_given_voxel_size_must_be_positive(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.zeros((4, 4, 4), np.float32), 1.0)
    with pytest.raises(InputError, match="voxel size -1 Å given, expected a positive number"):
        read_volume(path, voxel_size_angstrom=-1)


def test_bricks_are_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.zeros((4, 4, 4), np.float32), (1.0, 1.0, 1.5))
    with pytest.raises(FormatError, match=r"1 x 1 x 1\.5 Å, expected cubes"):
        read_volume(path)


def test_oblong_maps_are_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.zeros((4, 5, 6), np.float32), 1.0)
    with pytest.raises(FormatError, match=r"expected a cubic map, got \(4, 5, 6\)"):
        read_volume(path)


def test_nan_is_refused(tmp_path: Path) -> None:
    density = np.zeros((4, 4, 4), np.float32)
    density[1, 2, 3] = np.nan
    path = tmp_path / "a.mrc"
    with pytest.warns(RuntimeWarning):
        write_raw(path, density, 1.0)
    with pytest.raises(FormatError, match="NaN"):
        read_volume(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_volume(tmp_path / "absent.mrc")
    (tmp_path / "text.mrc").write_text("not a map at all")
    with pytest.raises(FormatError, match="not a readable MRC map"):
        read_volume(tmp_path / "text.mrc")


def test_truncated_map_is_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.zeros((8, 8, 8), np.float32), 1.0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="not a readable MRC map"):
        read_volume(path)


def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.ones((4, 4, 4), np.float32), 2.0)
    content = bytearray(path.read_bytes())
    content[:12] = np.full(3, 20_000, "<i4").tobytes()  # 32 TB
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"20000, 20000, 20000.*but the file has 1280"):
        read_volume(path)
    (tmp_path / "b.mrc").write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(FormatError, match="but the file has"):
        read_volume(tmp_path / "b.mrc")


def test_maps_packed_with_gzip_are_read(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.mrc", np.arange(64, dtype=np.float32).reshape(4, 4, 4), 2.0)
    (tmp_path / "b.mrc").write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_volume(tmp_path / "b.mrc").density, read_volume(path).density)
    (tmp_path / "c.mrc").write_bytes(gzip.compress(path.read_bytes())[:-40])
    with pytest.raises(FormatError, match=r"c\.mrc"):
        read_volume(tmp_path / "c.mrc")


@pytest.mark.parametrize(("value", "voxel"), [(1e30, 2.0), (1.0, 1e30), (1.0, 1e-30)])
def test_numbers_that_no_map_has_are_refused(tmp_path: Path, value: float, voxel: float) -> None:
    path = write_raw(tmp_path / "a.mrc", np.ones((4, 4, 4), np.float32), voxel)
    path.write_bytes(path.read_bytes()[:1024] + np.full(64, value, "<f4").tobytes())
    with pytest.raises(FormatError, match=r"a\.mrc"):
        read_volume(path)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_map_is_what_mrcfile_reads_of_it(tmp_path: Path, dtype: str, packed: bool) -> None:
    data = np.random.default_rng(1).normal(20, 9, size=(5, 5, 5)).astype(dtype)
    path = write_raw(tmp_path / "a.mrc", data, 1.0588235)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    with mrcfile.open(path) as mrc:
        expected, edge = np.array(mrc.data, np.float32), np.mean(np.array(mrc.voxel_size.tolist(), np.float64))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.density, expected)
    assert volume.voxel_size_angstrom == edge


def test_a_written_map_is_valid_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    volume = Volume(np.arange(27, dtype=np.float32).reshape(3, 3, 3), 1.35)
    for name in ("a.mrc", "b.mrc"):
        write_volume(tmp_path / name, volume)
    assert mrcfile.validate(str(tmp_path / "a.mrc"))
    assert (tmp_path / "a.mrc").read_bytes() == (tmp_path / "b.mrc").read_bytes()
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        assert mrc.is_volume()
