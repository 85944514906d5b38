"""Folders of masks as data sets: of `cryopick label`, and of one's own."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from discs import DIAMETER_PX, disc_centres, disc_micrograph

from cryopick.data.datasets import open_dataset
from cryopick.data.mask_folders import drawings_in, levels_of, particle_class, particles_in
from cryopick.errors import FormatError, InputError, SettingsError
from cryopick.geometry.units import parse_length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.images.raster import write_png
from cryopick.processing.targets import disc_instances
from cryopick.workflows.label import label

SHAPE_YX = (120, 160)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for seed in (0, 1):
        write_micrograph(folder / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        rows = [f"{x},{y},particle" for x, y in disc_centres(seed)[:2]]
        x, y = disc_centres(seed)[2]
        (folder / f"m{seed}.csv").write_text("\n".join(["x,y,kind", f"{x},{y},uncertain", *rows]) + "\n")
    (folder / "set.json").write_text(json.dumps({"diameter_px": DIAMETER_PX, "pixel_size_angstrom": 2.0}))
    return folder


def classes_of(seed: int) -> np.ndarray:
    return disc_instances(disc_centres(seed), DIAMETER_PX, shape_yx=SHAPE_YX).mask.astype(np.uint8)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Images and masks of one's own: 255 on discs."""
    folder = tmp_path / "own"
    for seed in (0, 1):
        write_micrograph(folder / "images" / f"m{seed}.mrc", disc_micrograph(f"m{seed}", seed=seed))
        write_png(folder / "masks" / f"m{seed}_mask.png", 255 * classes_of(seed))
    return folder


def test_a_label_folder_is_a_data_set_that_needs_nothing_more(labelled: Path, tmp_path: Path) -> None:
    label(labelled, tmp_path / "lab", shape="disc")
    dataset = open_dataset(tmp_path / "lab")
    assert dataset.layout == "label folder"
    assert [item.source.path.resolve() for item in dataset] == [
        (labelled / f"m{seed}.mrc").resolve() for seed in (0, 1)
    ]
    for seed, item in enumerate(dataset):
        assert (item.diameter_px, item.pixel_size_angstrom) == (DIAMETER_PX, 2.0)
        assert item.labels is not None
        assert item.labels.is_uncertain.tolist() == [False, False, True]
        np.testing.assert_allclose(item.labels.xy_px, disc_centres(seed), atol=1e-3)
        assert item.drawing is not None
        expected = disc_instances(disc_centres(seed)[:2], DIAMETER_PX, shape_yx=SHAPE_YX).mask
        assert (item.drawing.classes() == expected).all()
        ignored = item.drawing.is_ignored()
        assert ignored is not None
        assert (ignored == disc_instances(disc_centres(seed)[2:], DIAMETER_PX, shape_yx=SHAPE_YX).mask).all()


def test_a_label_folder_moves_with_its_micrographs_and_says_where_it_misses_them(
    labelled: Path, tmp_path: Path
) -> None:
    label(labelled, tmp_path / "data" / "lab", shape="disc")
    shutil.move(labelled, tmp_path / "elsewhere")
    assert len(open_dataset(tmp_path / "elsewhere" / "lab")) == 2
    shutil.move(tmp_path / "elsewhere" / "lab", tmp_path / "lab")
    with pytest.raises(InputError, match="--micrographs"):
        open_dataset(tmp_path / "lab")
    images = sorted((tmp_path / "elsewhere").glob("*.mrc"))
    assert len(open_dataset(tmp_path / "lab", micrographs=images, diameter=parse_length("20px"))) == 2


def test_own_masks_give_the_centres_of_their_spots(own: Path) -> None:
    dataset = open_dataset(own, diameter=parse_length("20px"))
    assert (dataset.layout, dataset.warnings) == ("images and masks", ())
    for seed, item in enumerate(dataset):
        assert item.labels is not None
        found = item.labels.xy_px[np.lexsort(item.labels.xy_px.T)]
        np.testing.assert_allclose(found, disc_centres(seed)[np.lexsort(disc_centres(seed).T)], atol=0.6)


def test_the_diameter_is_measured_on_masks_where_nobody_says_it_and_this_is_told(own: Path) -> None:
    dataset = open_dataset(own)
    assert dataset.items[0].diameter_px == pytest.approx(DIAMETER_PX, rel=0.03)
    assert any("was measured on the masks" in text for text in dataset.warnings)


def test_jpeg_masks_as_cryosegnet_has_them_are_black_and_white(own: Path) -> None:
    for seed in (0, 1):
        (own / "masks" / f"m{seed}_mask.png").unlink()
        cv2.imwrite(str(own / "masks" / f"m{seed}_mask.jpg"), 255 * classes_of(seed), [cv2.IMWRITE_JPEG_QUALITY, 80])
    for seed, item in enumerate(open_dataset(own)):
        assert item.drawing is not None
        assert (item.drawing.classes() != classes_of(seed)).mean() < 0.005


def with_junk(own: Path) -> None:
    for seed in (0, 1):
        classes = classes_of(seed)
        classes[:5] = 2
        write_png(own / "masks" / f"m{seed}_mask.png", classes)


def test_of_several_classes_the_particle_must_be_named(own: Path) -> None:
    with_junk(own)
    with pytest.raises(SettingsError, match=r"the classes are 0, 1, 2.*classes\.txt"):
        open_dataset(own)
    (own / "classes.txt").write_text("ice\nribosome (particle)\ncarbon\n")
    item = open_dataset(own).items[0]
    assert item.drawing is not None
    assert (item.drawing.particle, len(item.drawing.levels)) == (1, 3)
    assert item.labels is not None
    assert len(item.labels) == 3


def test_what_does_not_belong_together_is_refused(own: Path) -> None:
    write_png(own / "masks" / "other_mask.png", classes_of(0))
    with pytest.raises(InputError, match=r"other_mask\.png"):
        open_dataset(own)
    (own / "masks" / "other_mask.png").unlink()
    write_png(own / "masks" / "m1_mask.png", 255 * classes_of(1)[:-1])
    with pytest.raises(FormatError, match="160 x 119"):
        open_dataset(own)
    with pytest.raises(SettingsError, match="flip_y"):
        open_dataset(own, flip_y="yes")


def test_train_and_val_are_never_merged(own: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(own, tmp_path / "set" / "10017" / part)
    with pytest.raises(InputError, match="train and val"):
        open_dataset(tmp_path / "set")
    assert len(open_dataset(tmp_path / "set" / "10017" / "train")) == 2


def test_a_folder_of_sets_is_read_whole_whatever_the_layout_of_each(own: Path, labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "sets" / "drawn")
    shutil.copytree(labelled, tmp_path / "sets" / "marked")
    dataset = open_dataset(tmp_path / "sets")
    assert sorted(item.name for item in dataset) == [f"{name}/m{n}.mrc" for name in ("drawn", "marked") for n in (0, 1)]


def test_grey_values_become_classes_by_rules_that_can_be_read(tmp_path: Path) -> None:
    def levels(*values: int) -> tuple[int, ...]:
        write_png(tmp_path / "m.png", np.array([values], np.uint8))
        return levels_of([tmp_path / "m.png"])

    assert levels(0, 1) == (0, 1)
    assert levels(0, 2) == (0, 1, 2)
    assert levels(0, 255) == (0, 255)
    assert levels(0, 127, 255) == (0, 127, 255)
    with pytest.raises(FormatError, match="grey values"):
        levels(*range(0, 200, 3))


def test_which_class_is_the_particle_is_taken_from_the_clearest_word() -> None:
    assert particle_class(1, (), where="x") == 0
    assert particle_class(2, (), where="x") == 1
    assert particle_class(3, ("ice", "carbon", "protein"), where="x") == 2
    assert particle_class(5, (), where="x", given=4) == 4
    for given, names in ((5, ()), (None, ("particle", "particle too", "c"))):
        with pytest.raises(SettingsError, match="classes are"):
            particle_class(3, names, where="x", given=given)


def test_touching_discs_are_parted_where_the_diameter_is_known() -> None:
    xy_px = np.array([[30.0, 40.0], [50.0, 40.0], [70.0, 41.0], [120.0, 80.0]])
    mask = disc_instances(xy_px, 21.0, shape_yx=(120, 160)).mask
    assert len(particles_in(mask, diameter_px=None)) == 2
    found = particles_in(mask, diameter_px=21.0)
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], xy_px, atol=1.0)


def test_truth_is_read_without_images(own: Path) -> None:
    shutil.rmtree(own / "images")
    found = dict(drawings_in(own))
    assert sorted(found) == ["m0", "m1"]
    assert (found["m0"].classes() == classes_of(0)).all()
