"""What a picker is trained by: one object a system, and the loose names of plug-ins written for cryopick 0.1."""

from types import SimpleNamespace

import pytest

from cryopick.errors import SettingsError
from cryopick.pickers.families import family_of, find_preset, make_finetunable, make_trainable, trainable_pickers
from cryopick.training.trainable import Family, Preset, as_family

SMALL = {"small": Preset(task=None)}


@pytest.mark.parametrize("picker", trainable_pickers())
def test_every_system_that_learns_has_a_small_preset_and_changes_only_settings_that_there_are(picker):
    family = family_of(picker)
    assert isinstance(family, Family)
    small = find_preset(picker, "small")
    changed = small.changed(task=family.finetune_task, training=family.finetune_training)
    assert all(getattr(changed.task, name) == value for name, value in family.finetune_task.items())
    with pytest.raises(SettingsError, match="has no preset 'smal'; it has: small"):
        find_preset(picker, "smal")


def test_what_has_nothing_to_train_is_named():
    with pytest.raises(SettingsError, match="'blob' has nothing to train; pickers that can be trained: "):
        family_of("blob")


def test_only_cryoemmae_learns_without_labels():
    assert [name for name in trainable_pickers() if not family_of(name).needs_labels] == ["cryoemmae"]


def test_loose_names_of_a_plug_in_are_a_family():
    loose = SimpleNamespace(
        PRESETS=SMALL,
        make_trainable=max,
        FINETUNE_TASK={"batch_size": 8},
        FINETUNE_TRAINING={"steps": 9},
        NEEDS_LABELS=False,
    )
    assert as_family(loose) == Family(
        presets=SMALL,
        make_trainable=max,
        finetune_task={"batch_size": 8},
        finetune_training={"steps": 9},
        needs_labels=False,
    )
    fewest = as_family(SimpleNamespace(PRESETS=SMALL, make_trainable=max))
    assert fewest == Family(presets=SMALL, make_trainable=max)
    assert as_family(SimpleNamespace(FAMILY=fewest)) is as_family(fewest) is fewest


def test_without_a_way_of_its_own_fine_tuning_makes_what_training_does(monkeypatch):
    def make(task, *, train, validation):
        return task, train, validation

    monkeypatch.setattr("cryopick.pickers.families.family_of", lambda _: Family(presets=SMALL, make_trainable=make))
    assert make_trainable("any", 1, train=None, validation=None) == (1, None, None)
    assert make_finetunable("any", 1, train=2, validation=3, start=4) == (1, 2, 3)
