"""Parts that authors keep apart stay apart; sets are chosen by EMPIAR number; divisions are made and read."""

import json
from pathlib import Path

import pytest
from data_layouts import write_cryoppp, write_cryoppp_set, write_released_coco
from discs import DIAMETER_PX, disc_centres

from cryopick.data.datasets import open_dataset, open_micrographs
from cryopick.data.id_lists import choose_sets, expand_ids, id_lists
from cryopick.data.parts import part_of_name, parts_of
from cryopick.data.splits import read_split, refuse_shared, split_by_micrograph
from cryopick.errors import FormatError, InputError, SettingsError


@pytest.fixture
def released(tmp_path):
    return write_released_coco(tmp_path / "train_val_test_data", {"train": 3, "val": 2})


def test_released_coco_data_are_read_part_by_part_with_their_own_labels(released):
    learnt, validation = (open_dataset(released, part=part) for part in ("train", "validation"))
    assert [item.name for item in learnt] == ["m0.png", "m1.png", "m2.png"]
    assert [item.name for item in validation] == ["m3.png", "m4.png"]
    assert learnt.layout == "coco"
    assert learnt.items[0].diameter_px == pytest.approx(DIAMETER_PX)
    assert len(validation.items[1].labels) == len(disc_centres(4))
    refuse_shared(learnt, validation)
    assert [item.name for item in open_dataset(released / "val")] == ["m3.png", "m4.png"]


@pytest.mark.parametrize("opened", [open_dataset, open_micrographs])
def test_parts_that_are_kept_apart_are_never_read_together(released, opened):
    with pytest.raises(InputError, match=r"keep train and validation apart.*train_val_test_data/train"):
        opened(released)
    with pytest.raises(InputError, match="has no test part, only train and validation"):
        opened(released, part="test")


def test_parts_within_sets_are_joined_over_the_sets_and_named_by_them(tmp_path):
    for number, first in (("10005", 0), ("10017", 10)):
        write_cryoppp_set(tmp_path / number / "train", range(first, first + 2), name="same{}")
        write_cryoppp_set(tmp_path / number / "val", range(first + 2, first + 3), name="same{}")
    learnt = open_dataset(tmp_path, part="train")
    assert [item.name for item in learnt] == [
        "10005/same0.mrc", "10005/same1.mrc", "10017/same10.mrc", "10017/same11.mrc",
    ]  # fmt: skip
    assert {item.group for item in learnt} == {"10005", "10017"}
    only = open_dataset(tmp_path, part="validation", ids=["EMPIAR-10017"])
    assert [item.name for item in only] == ["same12.mrc"]
    (tmp_path / "10028" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="10005 keeps train and validation apart and 10028 does not"):
        parts_of(tmp_path)


def test_a_folder_without_parts_has_none_and_one_that_is_called_like_a_part_is_no_part(tmp_path):
    write_cryoppp(tmp_path, {"10005": 1})
    assert parts_of(tmp_path) == parts_of(tmp_path / "10005") == {}
    (tmp_path / "10005" / "test").mkdir()
    assert parts_of(tmp_path) == {}
    with pytest.raises(InputError, match="keeps no train part apart"):
        open_dataset(tmp_path, part="train")
    assert [part_of_name(name) for name in ("val2017", "Train", "valid", "training_1", "trained")] == [
        "validation", "train", "validation", "train", None,
    ]  # fmt: skip


def test_sets_are_chosen_by_number_or_by_a_papers_list(tmp_path):
    write_cryoppp(tmp_path, {"10017": 1, "10081": 2, "10345": 1})
    assert {item.group for item in open_dataset(tmp_path, ids=["10081", "10345"])} == {"10081", "10345"}
    assert {item.group for item in open_micrographs(tmp_path, ids=["10081"])} == {"10081"}
    with pytest.raises(InputError, match="has no set 10093, 10532, 11056; it has 10017, 10081, 10345"):
        open_dataset(tmp_path, ids=["cryotransformer-test"])
    assert choose_sets(["bgal10017", "110017", "x-10028"], ["10017", "10028"], where="here") == ["bgal10017", "x-10028"]
    with pytest.raises(InputError, match="10017 may be any of"):
        choose_sets(["a10017", "b10017"], ["10017"], where="here")
    with pytest.raises(SettingsError, match="'bgal' is neither an EMPIAR number nor a list; the lists are cryo"):
        expand_ids(["bgal"])


def test_the_papers_lists_have_the_sizes_that_they_say_and_test_on_other_sets_than_they_train_on():
    lists = id_lists()
    sizes = {name: len(one.ids) for name, one in lists.items()}
    assert sizes == {
        "cryotransformer-train": 22, "cryotransformer-test": 6, "cryotransformer-full": 4,
        "cryosegnet-train": 22, "cryosegnet-test": 7, "cryosegnet-full": 5, "cryosegnet-finetune": 2,
        "cryoemmae-single": 4, "cryoemmae-test": 14, "cryoemmae-train": 20, "cryoemmae-maps": 8,
        "deepcryopicker-external": 3,
    }  # fmt: skip
    for system in ("cryotransformer", "cryosegnet"):
        train, test = set(lists[f"{system}-train"].ids), set(lists[f"{system}-test"].ids)
        assert not train & test
        assert set(lists[f"{system}-full"].ids) <= test
    assert set(lists["cryoemmae-single"].ids) < set(lists["cryoemmae-test"].ids) < set(lists["cryoemmae-train"].ids)
    for one in lists.values():
        assert len(set(one.ids)) == len(one.ids)
        assert any(year in one.source for year in ("2020", "2024", "2025"))
    spelt_out = (
        "cryoemmae-train",
        "cryoemmae-single",
        "cryoemmae-maps",
        "deepcryopicker-external",
        "cryosegnet-finetune",
    )
    assert all(number in lists[name].source for name in spelt_out for number in lists[name].ids)


def test_each_set_gives_to_all_three_parts_and_the_parts_share_nothing(tmp_path):
    dataset = open_dataset(write_cryoppp(tmp_path, {"10005": 10, "10017": 5, "10028": 2}))
    split = split_by_micrograph(dataset, validation_fraction=0.1, test_fraction=0.1, seed=3)
    counts = {
        group: [sum(name.startswith(group) for name in part) for part in (split.train, split.validation, split.test)]
        for group in ("10005", "10017", "10028")
    }
    assert counts == {"10005": [8, 1, 1], "10017": [3, 1, 1], "10028": [1, 1, 0]}
    assert len({*split.train, *split.validation, *split.test}) == len(dataset)
    without = split_by_micrograph(dataset, validation_fraction=0.1, seed=3)
    assert without.validation == split.validation
    assert "test" not in without.as_json()
    with pytest.raises(SettingsError, match="less than 1 together"):
        split_by_micrograph(dataset, validation_fraction=0.5, test_fraction=0.5)


def test_a_division_of_somebody_else_is_read_by_names_and_must_be_one(tmp_path):
    dataset = open_dataset(write_cryoppp(tmp_path / "data", {"10005": 3, "10017": 2}))
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["10005/m0", "m1.mrc"], "validation": ["10017/m3.mrc"], "test": ["m4"]}))
    split = read_split(path, dataset)
    assert split.train == ("10005/m0.mrc", "10005/m1.mrc")
    assert (split.validation, split.test) == (("10017/m3.mrc",), ("10017/m4.mrc",))
    for content, error, message in (
        ({"train": ["m0"], "validation": ["m9"]}, InputError, "1 of 1 names under validation have no micrograph"),
        ({"train": ["m0", "m1"], "validation": ["m1"]}, InputError, "is in two parts"),
        ({"train": ["m0"]}, InputError, "names nothing under validation"),
        ({"train": "m0", "validation": ["m1"]}, FormatError, "train is not a list"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(error, match=message):
            read_split(path, dataset)


def test_what_teaches_and_validates_is_refused(tmp_path):
    dataset = open_dataset(write_cryoppp(tmp_path, {"10005": 2}))
    with pytest.raises(InputError, match=r"2 of its micrographs are learnt from too, such as m0\.mrc"):
        refuse_shared(dataset, dataset)


def test_the_page_on_training_data_lists_every_list():
    page = (Path(__file__).parents[2] / "docs" / "training-data.md").read_text(encoding="utf-8")
    for one in id_lists().values():
        assert f"| `{one.name}` | {', '.join(one.ids)} |\n" in page
