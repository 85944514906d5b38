"""`train --data`: what teaches, what validates and what is kept for a test, from each layout."""

import json
from pathlib import Path

import pytest
import toy_picker  # noqa: F401  # registers the picker
from data_layouts import write_cryoppp, write_cryoppp_set, write_released_coco

from cryopick.errors import InputError, SettingsError
from cryopick.workflows.train import plan_training, train_picker


@pytest.fixture(autouse=True)
def _no_training(monkeypatch):
    """The toy's data are what this is about."""
    monkeypatch.setattr("cryopick.workflows.train.train", lambda trainable, *_, **options: (trainable, options))


def opened(folder: Path, data: Path, **settings):
    plan = plan_training("toy", data=str(data), data_settings=settings)
    trainable, options = train_picker(plan, folder)
    return (*([item.name for item in part] for part in trainable.data), options["record"])


def test_released_coco_data_are_learnt_from_and_validated_on_as_their_authors_divided_them(tmp_path):
    data = write_released_coco(tmp_path / "data", {"train": 3, "val": 2, "test": 1})
    train, validation, record = opened(tmp_path / "t", data)
    assert (train, validation) == (["m0.png", "m1.png", "m2.png"], ["m3.png", "m4.png"])
    assert record["training_data"]["names"] == train
    split = json.loads((tmp_path / "t" / "split.json").read_text())
    assert (split["train"], split["validation"]) == (train, validation)
    with pytest.raises(SettingsError, match="its authors divided it"):
        opened(tmp_path / "u", data, test_fraction="0.2")


def test_a_data_set_of_its_own_validates_and_must_share_nothing(tmp_path):
    data = write_cryoppp(tmp_path / "data", {"10005": 3, "10017": 2})
    other = write_cryoppp_set(tmp_path / "other", range(10, 12))
    train, validation, _ = opened(tmp_path / "t", data, validation=str(other))
    assert train == ["10005/m0.mrc", "10005/m1.mrc", "10005/m2.mrc", "10017/m3.mrc", "10017/m4.mrc"]
    assert validation == ["m10.mrc", "m11.mrc"]
    with pytest.raises(InputError, match="learnt from too"):
        opened(tmp_path / "u", data, validation=str(data / "10017"))
    assert not (tmp_path / "u").exists()
    released = write_released_coco(tmp_path / "released", {"train": 2, "val": 1})
    assert opened(tmp_path / "v", data, validation=str(released))[1] == ["m2.png"]


def test_micrographs_kept_for_a_test_are_listed_to_be_picked(tmp_path):
    data = write_cryoppp(tmp_path / "data", {"10005": 5, "10017": 5})
    train, validation, record = opened(tmp_path / "t", data, test_fraction="0.2", ids="10017")
    (test,) = (tmp_path / "t" / "test.txt").read_text().splitlines()
    names = {*train, *validation, Path(test).name}
    assert names == {f"m{number}.mrc" for number in range(5, 10)}
    assert (len(train), len(validation)) == (3, 1)
    assert record["test_data"]["names"] == [Path(test).name]
    again = opened(tmp_path / "u", data, ids="10017", split=str(tmp_path / "t" / "split.json"))
    assert again[:2] == (train, validation)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": "v", "test_fraction": "0.1"}, "leave split and test_fraction out"),
        ({"split": "s.json", "test_fraction": "0.1"}, "give one of them"),
        ({"cache_size": "0"}, "cache_size is 0 GB"),
    ],
)
def test_data_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        plan_training("toy", data="somewhere", data_settings=settings)


@pytest.mark.parametrize("name", ["ids", "validation", "split"])
def test_what_only_data_sets_have_is_refused_for_simulation(tmp_path, name):
    plan = plan_training("toy", data_settings={name: "10017"})
    with pytest.raises(SettingsError, match=f"{name} is given, and what is learnt from is simulated"):
        train_picker(plan, tmp_path)


def test_where_nothing_validates_all_but_the_test_is_learnt_from(tmp_path):
    data = write_cryoppp(tmp_path / "data", {"10005": 10})
    plan = plan_training("cryoemmae", data=str(data), data_settings={"test_fraction": "0.1", "diameter": "20px"})
    trainable, options = train_picker(plan, tmp_path / "t")
    (test,) = (tmp_path / "t" / "test.txt").read_text().splitlines()
    names = [item.name for item in trainable.train]
    assert {*names, Path(test).name} == {f"m{number}.mrc" for number in range(10)}
    assert len(names) == 9
    assert options["record"]["test_data"]["names"] == [Path(test).name]
