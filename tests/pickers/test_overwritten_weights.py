"""Weights that are overwritten while Python runs are those that pick from then on, in every picker with a network."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from discs import disc_micrograph

import cryopick
from cryopick.errors import WeightsError
from cryopick.inference.openvino_network import OpenVinoNetwork
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.weights import card_path, find_weights, load_checkpoint, save_checkpoint
from cryopick.pickers.cryoemmae import CryoEmmaePicker
from cryopick.pickers.cryosegnet import CryoSegNetPicker
from cryopick.pickers.cryosegnet.segmenter import EMBEDDED
from cryopick.pickers.cryotransformer import CryoTransformerPicker
from cryopick.pickers.general import GeneralPicker
from cryopick.pickers.segmentation_crf import SegmentationCrfPicker

LOADED: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "general": ("general", lambda path: GeneralPicker(weights=path)._model),
    "cryotransformer": ("cryotransformer", lambda path: CryoTransformerPicker(weights=path)._model),
    "cryoemmae": ("cryoemmae", lambda path: CryoEmmaePicker(weights=path)._model),
    "cryosegnet": ("cryosegnet", lambda path: CryoSegNetPicker(weights=path)._mapper),
    "masks of cryosegnet": (EMBEDDED, lambda path: CryoSegNetPicker(segmenter="sam", sam=str(path))._sam),
    "segmentation-crf": ("segmentation-crf", lambda path: SegmentationCrfPicker(weights=path).model),
}
"""By name, the shipped weights, and from a path what the picker's networks are asked for with."""


def weights_in(found: object, *, depth: int = 0) -> list[torch.Tensor]:
    """Every parameter of the networks inside a loaded model; of a graph, which shows none, what it answers."""
    if isinstance(found, OpenVinoNetwork):
        return [torch.from_numpy(found(np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)))]
    if isinstance(found, torch.nn.Module):
        return list(found.parameters())
    if depth > 5 or not hasattr(found, "__dict__"):
        return []
    return [tensor for value in vars(found).values() for tensor in weights_in(value, depth=depth + 1)]


@pytest.mark.parametrize("network", LOADED)
def test_overwritten_weights_are_the_ones_that_pick(tmp_path, network):
    name, picker_with = LOADED[network]
    path = tmp_path / "mine.safetensors"
    shutil.copy(find_weights(name), path)
    shutil.copy(card_path(find_weights(name)), card_path(path))
    loaded = picker_with(path)
    first = loaded()
    assert loaded() is first
    before, stored = path.stat(), load_checkpoint(path)
    halved = {key: one / 2 if one.is_floating_point() else one for key, one in stored.tensors.items()}
    save_checkpoint(tmp_path / "new.safetensors", halved, replace(stored.card, sha256=""))
    path.write_bytes((tmp_path / "new.safetensors").read_bytes())  # in its place: same file, same size
    card_path(path).write_bytes((tmp_path / "new.json").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and `rsync` leave it
    second = loaded()
    pairs = list(zip(weights_in(first), weights_in(second), strict=True))
    assert pairs
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_a_card_that_is_overwritten_counts_too(tmp_path):
    path = tmp_path / "mine.safetensors"
    stored = load_checkpoint(find_weights("general"))
    save_checkpoint(path, stored.tensors, stored.card)
    picker = GeneralPicker(weights=path)
    first = picker._model()
    flat = [[-1.0, 1.0], [0.25, 0.25]]
    postprocessing = {**stored.card.postprocessing, "calibration": flat}
    save_checkpoint(path, stored.tensors, replace(stored.card, postprocessing=postprocessing))
    second = picker._model()
    assert first.calibration.to_list() != flat
    assert second.calibration.to_list() == flat


def test_weights_that_are_not_there_leave_no_run_behind(tmp_path):
    write_micrograph(tmp_path / "m.mrc", disc_micrograph("m"))
    with pytest.raises(WeightsError, match="no such weights file"):
        cryopick.pick(tmp_path / "m.mrc", "general", output=tmp_path / "run", weights=tmp_path / "typo.safetensors")
    assert not (tmp_path / "run").exists()
