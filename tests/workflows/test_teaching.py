"""What a person marked becomes labels that every reader takes, and a removal teaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from discs import disc_centres, disc_micrograph

from cryopick.data.datasets import open_dataset
from cryopick.data.labels import read_labels
from cryopick.errors import FormatError, InputError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.types import Picks
from cryopick.workflows.edits import Mark, Marks
from cryopick.workflows.teaching import MICROGRAPHS, Taught, write_teaching_set

JUNK = Mark(kind="junk", x=0.0, y=80.0, points=((0.0, 80.0), (60.0, 80.0), (60.0, 118.0), (0.0, 118.0)))


def taught(folder: Path, key: str, *, is_complete: bool = False, confident: bool = False) -> Taught:
    path = folder / "mics" / f"{key}.mrc"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_micrograph(path, disc_micrograph(key))
    xy = disc_centres(0)
    picks = Picks(xy_px=xy, score=np.ones(3, np.float32), micrograph_name=key, shape_yx=(120, 160))
    marks = Marks(
        by_id={
            "a": Mark(kind="yes", x=xy[0, 0], y=xy[0, 1], diameter_px=20.0),
            "b": Mark(kind="no", x=140.0, y=100.0),
            "c": JUNK,
        },
        is_complete=is_complete,
    )
    return Taught(
        key=key,
        source=path,
        marks=marks,
        picks=picks,
        confident=np.full(3, confident),
        diameter_px=20.0,
        pixel_size_angstrom=2.0,
    )


def test_two_files_of_one_name_in_two_folders_get_their_own_labels(tmp_path: Path):
    told = write_teaching_set(
        tmp_path / "teach", [taught(tmp_path, "one/m"), taught(tmp_path, "two/m", is_complete=True)]
    )
    images = [f"@{tmp_path / f'teach-{MICROGRAPHS}'}"]
    dataset = open_dataset(tmp_path / "teach", micrographs=images, completeness="sparse", flip_y="no")
    sparse, complete = dataset.items
    assert (sparse.name, complete.name) == ("one/m.mrc", "two/m.mrc")
    assert (sparse.completeness, complete.completeness) == ("sparse", "complete")
    assert sparse.labels is not None
    assert complete.labels is not None
    assert (len(sparse.labels), len(complete.labels)) == (1, 3)
    background = sparse.labels.background_xy_px
    assert [140.0, 100.0] in background.tolist()
    in_junk = background[(background != [140.0, 100.0]).any(axis=1)]
    assert len(in_junk) > 10
    assert (in_junk[:, 0] < 60).all()
    assert (in_junk[:, 1] > 80).all()
    assert len(complete.labels.background_xy_px) == 0
    assert (told.particles, told.background, told.complete) == (4, len(background), ["two/m"])
    assert sparse.diameter_px == 20.0


def test_confident_picks_teach_once_beside_the_marks(tmp_path: Path):
    told = write_teaching_set(tmp_path / "teach", [taught(tmp_path, "m", confident=True)])
    assert (told.particles, told.confident) == (3, 2)


def test_what_is_gone_is_named_and_nothing_marked_is_an_error(tmp_path: Path):
    one = taught(tmp_path, "m")
    one.source.unlink()
    with pytest.raises(InputError, match="nothing is marked that could teach"):
        write_teaching_set(tmp_path / "teach", [one])
    assert not (tmp_path / "teach" / "set.json").exists()


def test_a_kind_of_label_that_is_unknown_is_named_with_its_line(tmp_path: Path):
    (tmp_path / "m.csv").write_text("x,y,kind\n1,2,particle\n3,4,background\n5,6,ice\n")
    with pytest.raises(FormatError, match=r"line 4: kind is 'ice', expected particle, uncertain or background"):
        read_labels(tmp_path)
    (tmp_path / "m.csv").write_text("x,y,kind\n1,2,particle\n3,4,background\n5,6,uncertain\n")
    (labels,) = read_labels(tmp_path).values()
    assert labels.xy_px.tolist() == [[1, 2], [5, 6]]
    assert labels.background_xy_px.tolist() == [[3, 4]]
    assert labels.is_uncertain.tolist() == [False, True]


def test_labelled_background_moves_with_the_crop_and_lowers_the_network_there():
    torch = pytest.importorskip("torch")
    from cryopick.heatmap.targets import crop_targets
    from cryopick.pickers.general.trainable import labelled_loss
    from cryopick.training.augment import LabelledCrop, dihedral
    from cryopick.training.sampling import cut, scaled

    image = np.zeros((64, 64), np.float32)
    image[40, 20] = 1
    crop = LabelledCrop(
        image, np.array([[50.0, 10.0]]), np.array([20.0]), np.zeros(1, bool), False, np.array([[20.0, 40.0]])
    )
    for number in range(8):
        moved = scaled(cut(dihedral(crop, number), left=0, top=0, side=64), crop_px=64)
        ((x, y),) = np.rint(moved.background_xy_px).astype(int)
        assert moved.image[y, x] == 1
    targets = crop_targets(crop)
    assert targets[5].sum() > 0
    assert np.argwhere(targets[5] > 0).mean(axis=0) == pytest.approx([20, 10], abs=0.5)
    maps = torch.zeros((1, 5, 32, 32), requires_grad=True)
    loss = labelled_loss(maps, torch.from_numpy(targets)[None], torch.tensor([False]), prior=0.1)["loss"]
    loss.backward()
    slope = maps.grad[0, 0].numpy()
    inside, elsewhere = slope[targets[5] > 0], slope[(targets[5] == 0) & (targets[0] == 0)]
    assert inside.min() > 5 * elsewhere.max()  # to lower the loss, the answer must fall here above all
