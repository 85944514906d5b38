"""Labels: uncertain ones are marked, the set's diameter is known, any coordinate format will do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_data import REAL

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import read_labels
from cryopick.errors import FormatError
from cryopick.io.images.raster import write_png


def make_set(folder: Path, settings: str | None) -> Path:
    folder.mkdir()
    (folder / "m1.csv").write_text("x,y,kind\n1.5,2,particle\n3,4,uncertain\n")
    (folder / "m2.csv").write_text("x,y,kind\n")
    if settings is not None:
        (folder / "set.json").write_text(settings)
    return folder


def test_folder_of_csv_gives_kinds_empty_micrographs_and_the_sets_diameter(tmp_path: Path) -> None:
    labels = read_labels(make_set(tmp_path / "set", '{"diameter_px": 72, "pixel_size_angstrom": null}'))
    assert list(labels) == ["m1", "m2"]
    assert labels["m1"].xy_px.tolist() == [[1.5, 2], [3, 4]]
    assert labels["m1"].is_uncertain.tolist() == [False, True]
    assert (labels["m1"].diameter_px, labels["m1"].pixel_size_angstrom) == (72, None)
    assert len(labels["m2"]) == 0


def test_star_labels_are_all_certain_whatever_their_class(tmp_path: Path) -> None:
    path = tmp_path / "particles.star"
    path.write_text(
        "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnClassNumber\n"
        "a.mrc 1 2 1\na.mrc 3 4 0\n"
    )
    labels = read_labels(path)
    assert labels["a.mrc"].is_uncertain.tolist() == [False, False]
    assert labels["a.mrc"].diameter_px is None


def test_diameter_of_the_rows_is_used_where_the_set_has_none(tmp_path: Path) -> None:
    path = tmp_path / "m1.csv"
    path.write_text("x,y,diameter\n1,2,10\n3,4,14\n5,6,\n")
    assert read_labels(path)["m1"].diameter_px == 12


def test_candidates_that_a_program_rejected_are_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "m1.csv"
    path.write_text("x,y,reason\n1,2,\n3,4,edge\n")
    assert read_labels(path)["m1"].xy_px.tolist() == [[1, 2]]


BAD_SETTINGS = (
    *('{"diameter_px": -1}', '{"diameter_px": "72"}', '{"diameter_px": 1e308}', '{"pixel_size_angstrom": true}'),
    *('{"diameter_px": 100001}', '{"pixel_size_angstrom": 1001}', '{"pixel_size_angstrom": 0}', '{"diameter_px": NaN}'),
    *('{"labels": ["complete"]}', "[1]", "{", "[" * 100_000, '{"diameter_px": 1' + "0" * 400 + "}", "\xe9", "\0"),
)


@pytest.mark.parametrize("settings", BAD_SETTINGS)
def test_bad_settings_are_refused_by_name(tmp_path: Path, settings: str) -> None:
    folder = make_set(tmp_path / "set", None)
    (folder / "set.json").write_bytes(settings.encode("latin-1"))
    with pytest.raises(FormatError, match=r"set\.json"):
        read_labels(folder)
    for name in ("m1.png", "m2.png"):
        write_png(folder / name, np.zeros((40, 40), np.uint8))
    with pytest.raises(FormatError, match=r"set\.json"):
        open_dataset(folder)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real labelled micrographs are not here")
def test_real_sets_have_the_published_numbers_of_labels() -> None:
    expected = {"bgal10017": (5560, 1176, 108), "apoferritin": (1135, 129, 72), "empty": (0, 0, 20)}
    for name, (particles, uncertain, diameter_px) in expected.items():
        labels = read_labels(REAL / name).values()
        assert sum(int((~one.is_uncertain).sum()) for one in labels) == particles
        assert sum(int(one.is_uncertain.sum()) for one in labels) == uncertain
        assert {one.diameter_px for one in labels} == {diameter_px}
