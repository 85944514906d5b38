"""Data sets in the layouts that people have, with the mistakes that people make."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.data.datasets import open_dataset, open_micrographs
from cryopick.data.splits import divide, split_by_micrograph
from cryopick.data.summary import describe_dataset
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.transforms import flip_y
from cryopick.geometry.units import parse_length
from cryopick.io.images.micrographs import write_micrograph

SHAPE_YX = (120, 160)


def write_images(folder: Path, count: int) -> list[str]:
    names = [f"m{number}.mrc" for number in range(count)]
    for seed, name in enumerate(names):
        write_micrograph(folder / name, disc_micrograph(name, seed=seed))
    return names


def write_csv(path: Path, xy: np.ndarray, *, header: str = "x,y", tail: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f"{x:.3f},{y:.3f}{tail}" for x, y in xy)]) + "\n")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Four images, three labelled, one of those as empty."""
    folder = tmp_path / "plain"
    names = write_images(folder, 4)
    for seed in (0, 1):
        write_csv(folder / names[seed].replace(".mrc", ".csv"), disc_centres(seed))
    write_csv(folder / "m2.csv", np.zeros((0, 2)))
    (folder / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX, "pixel_size_angstrom": 2.0}))
    return folder


def make_cryoppp(folder: Path, count: int = 4, *, is_flipped: bool = True) -> Path:
    """The published layout; its tables count y from the bottom (height minus row)."""
    write_images(folder / "micrographs", count)
    for seed in range(count):
        xy = disc_centres(seed)
        if is_flipped:
            xy[:, 1] = SHAPE_YX[0] - xy[:, 1]
        path = folder / "ground_truth" / "particle_coordinates" / f"m{seed}.csv"
        write_csv(path, xy, header="X-Coordinate,Y-Coordinate,Diameter", tail=f",{DIAMETER_PX}")
    return folder


def test_folder_with_csv_tells_empty_from_unlabelled(plain):
    dataset = open_dataset(plain)
    by_name = {item.name: item for item in dataset}
    np.testing.assert_allclose(by_name["m0.mrc"].labels.xy_px, disc_centres(0), atol=1e-3)
    assert by_name["m0.mrc"].diameter_px == DIAMETER_PX
    assert len(by_name["m2.mrc"].labels) == 0
    assert by_name["m3.mrc"].labels is None
    assert [item.name for item in dataset.labelled()] == ["m0.mrc", "m1.mrc", "m2.mrc"]
    assert "no labels for 1 of 4 micrographs, such as m3.mrc" in dataset.warnings[0]


def test_cryoppp_is_read_in_our_frame(tmp_path):
    dataset = open_dataset(make_cryoppp(tmp_path / "10017"))
    assert dataset.layout == "cryoppp"
    for seed, item in enumerate(dataset):
        np.testing.assert_allclose(item.labels.xy_px, disc_centres(seed), atol=1e-3)
        assert item.diameter_px == DIAMETER_PX
    assert dataset.orientation.best == "identity"


def test_several_cryoppp_sets_are_one_data_set_split_within_each(tmp_path):
    for name in ("10017", "10081"):
        make_cryoppp(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert [item.group for item in dataset] == ["10017"] * 4 + ["10081"] * 4


def test_cryoppp_in_the_wrong_frame_is_noticed_on_the_images(tmp_path):
    folder = make_cryoppp(tmp_path / "10017", is_flipped=False)
    with pytest.raises(InputError, match=r"do not fit the images as their format says.*flip_y fits best"):
        open_dataset(folder)
    turned = open_dataset(folder, flip_y="auto")
    for seed, item in enumerate(turned):
        expected = flip_y(flip_y(disc_centres(seed), SHAPE_YX), SHAPE_YX)
        np.testing.assert_allclose(item.labels.xy_px, expected, atol=1.01)  # h - y and h - 1 - y differ by one


def test_orientation_that_cannot_be_measured_is_not_guessed(plain):
    (plain / "set.json").unlink()
    with pytest.raises(InputError, match="the orientation is unclear"):
        open_dataset(plain, flip_y="auto")


def test_star_file_finds_the_micrographs_that_it_names(tmp_path):
    write_images(tmp_path / "mics", 2)
    rows = [f"mics/m{seed}.mrc {x} {y}" for seed in (0, 1) for x, y in disc_centres(seed)]
    head = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    (tmp_path / "particles.star").write_text(head + "\n".join(rows) + "\n\n")
    dataset = open_dataset(tmp_path / "particles.star", diameter=parse_length("40A"), pixel_size_angstrom=2.0)
    np.testing.assert_allclose([item.labels.xy_px for item in dataset], [disc_centres(0), disc_centres(1)], atol=1e-3)
    assert {item.diameter_px for item in dataset} == {20.0}


def test_labels_without_images_are_an_error_that_names_them(plain):
    write_csv(plain / "lost.csv", disc_centres(0))
    with pytest.raises(InputError, match=r"labels without images: lost \(1 of 4\)"):
        open_dataset(plain)


def coco(path: Path, names: list[str]) -> None:
    annotations = [
        {"id": k, "image_id": 1, "category_id": k % len(names), "bbox": [10.0, 10.0, 20.0, 20.0]} for k in range(4)
    ]
    content = {
        "images": [{"id": 1, "file_name": "m0.mrc", "width": 160, "height": 120}],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
    }
    path.write_text(json.dumps(content))


def test_coco_file_with_foreign_classes_is_refused(tmp_path):
    write_images(tmp_path / "mics", 1)
    coco(tmp_path / "labels.json", ["particle", "dog", "cat"])
    with pytest.raises(FormatError, match="foreign classes cat, dog; expected particles only"):
        open_dataset(tmp_path / "labels.json", micrographs=[tmp_path / "mics"])
    coco(tmp_path / "labels.json", ["particle A", "particle B"])
    dataset = open_dataset(tmp_path / "labels.json", micrographs=[tmp_path / "mics"])
    assert len(dataset.items[0].labels) == 4


def test_sparse_labels_are_marked_by_file_or_caller(plain):
    assert {item.completeness for item in open_dataset(plain)} == {"complete"}
    settings = json.loads((plain / "set.json").read_text())
    (plain / "set.json").write_text(json.dumps({**settings, "labels": "sparse"}))
    assert not any(item.is_complete for item in open_dataset(plain))
    assert all(item.is_complete for item in open_dataset(plain, completeness="complete"))
    with pytest.raises(SettingsError, match="expected complete or sparse"):
        open_dataset(plain, completeness="some")
    (plain / "set.json").write_text(json.dumps({"labels": "some"}))
    with pytest.raises(FormatError, match="labels are 'some'"):
        open_dataset(plain)


def test_split_is_by_micrograph_seeded_and_within_each_set(tmp_path):
    for name in ("10017", "10081"):
        make_cryoppp(tmp_path / name)
    dataset = open_dataset(tmp_path)
    split = split_by_micrograph(dataset, validation_fraction=0.25, seed=3)
    assert split == split_by_micrograph(dataset, validation_fraction=0.25, seed=3)
    assert set(split.train) | set(split.validation) == {item.name for item in dataset}
    assert not set(split.train) & set(split.validation)
    assert sorted(name.split("/")[0] for name in split.validation) == ["10017", "10081"]
    assert [item.name for item in dataset.take(split.validation)] == list(split.validation)
    with pytest.raises(InputError, match="the split was made for other data"):
        dataset.take(["missing"])


def test_single_micrograph_is_divided_by_rows(plain):
    for name in ("m1.csv", "m2.csv"):
        (plain / name).unlink()
    dataset = open_dataset(plain)
    with pytest.raises(InputError, match="cannot be split"):
        split_by_micrograph(dataset)
    upper, lower, _ = divide(dataset, validation_fraction=0.34)
    (above,), (below,) = upper.items, lower.items
    assert (len(above.labels), len(below.labels)) == (2, 1)
    whole = dataset.labelled().items[0].read().pixels
    assert (np.concatenate([above.read().pixels, below.read().pixels]) == whole).all()
    offset = above.shape_yx[0]
    together = np.concatenate([above.labels.xy_px, below.labels.xy_px + np.array([0, offset])])
    assert sorted(map(tuple, together.tolist())) == sorted(
        map(tuple, dataset.labelled().items[0].labels.xy_px.tolist())
    )


def test_summary_counts_and_says_what_looks_wrong(plain):
    xy = disc_centres(1)
    write_csv(plain / "m1.csv", np.concatenate([xy, xy[:1] + 0.5, [[300.0, 20.0]]]))
    summary = describe_dataset(plain)
    assert (summary.micrographs, summary.labelled, summary.particles) == (4, 3, 8)
    assert summary.shapes_yx == {SHAPE_YX: 4}
    assert summary.diameters_px == {20.0: 3}
    text = "\n".join(summary.lines())
    assert "1 labels lie outside their image, on 1 micrographs: m1.mrc (1)" in text
    assert "1 pairs of labels are closer than a tenth of a diameter: m1.mrc (1)" in text
    assert "1 micrographs are labelled as empty: m2.mrc" in text


def test_inspect_tells_a_data_set_and_its_problems(plain, tmp_path):
    from cryopick.workflows.inspect import inspect

    found = inspect(plain)
    assert found.kind == "data set"
    assert found.facts["particles"] == 6
    assert found.facts["labelled_micrographs"] == 3
    assert found.facts["particle_diameter_px"] == {"20": 3}
    assert any("no labels for 1 of 4 micrographs" in text for text in found.warnings)
    wrong = inspect(make_cryoppp(tmp_path / "10017", is_flipped=False))
    assert any("flip_y fits best" in text for text in wrong.warnings)


@pytest.mark.parametrize("diameter", ["5000px", "0.001px"])
def test_diameters_that_no_particle_of_the_micrographs_can_have_are_named(plain, diameter):
    with pytest.raises(SettingsError, match=r"the particle diameter is .* px, expected at least 4 px and at most"):
        open_dataset(plain, diameter=parse_length(diameter))


def test_images_and_labels_in_folders_side_by_side_are_one_set(plain, tmp_path):
    folder = tmp_path / "one"
    for place, pattern in (("pics", "*.mrc"), ("labels", "*.csv")):
        (folder / place).mkdir(parents=True)
        for path in plain.glob(pattern):
            shutil.copy(path, folder / place)
    diameter = parse_length("20px")
    found = open_dataset(folder, diameter=diameter)
    whole = open_dataset(plain, diameter=diameter)
    assert sorted(Path(item.name).name for item in found) == sorted(item.name for item in whole)
    assert sum(item.labels is not None for item in found) == sum(item.labels is not None for item in whole) > 0


def test_images_that_are_given_are_read_once_whatever_folders_lie_in_the_data_set(plain, tmp_path):
    for name in ("g1", "g2"):
        shutil.copytree(plain, tmp_path / "sets" / name)
    images = sorted(plain.glob("*.mrc"))
    found = open_micrographs(tmp_path / "sets", micrographs=images, diameter=parse_length("20px"))
    assert sorted(item.source.path for item in found) == images
