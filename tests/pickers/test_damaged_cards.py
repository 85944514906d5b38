"""Whatever happened to the card of weights, a picker says so in one sentence or works with sane values."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from cryopick.errors import WeightsError
from cryopick.heatmap.model import load_model
from cryopick.io.weights import card_path, find_weights
from cryopick.pickers.cryoemmae import picker as cryoemmae
from cryopick.pickers.cryosegnet import model as cryosegnet_map
from cryopick.pickers.cryosegnet import segmenter as cryosegnet_masks
from cryopick.pickers.cryotransformer import picker as cryotransformer
from cryopick.pickers.segmentation_crf import model as segmentation_maps

LOADERS: dict[str, Any] = {
    "general": load_model,
    "cryotransformer": cryotransformer.load_set_model,
    "cryoemmae": cryoemmae.load_model,
    "cryosegnet": cryosegnet_map.load_mapper,
    "segmentation-crf": lambda path: segmentation_maps.load_segmentation(path, backbone="small", head="fcn"),
    cryosegnet_masks.EMBEDDED: lambda path: cryosegnet_masks.load_segmenter(str(path)),
}
STRANGE: list[Any] = [None, "x", -1, 0, 1.5, 10**9, [], {}, [[]], True, [1, 2], "9" * 400, {"a": {}}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside plain JSON, but only a few of long lists."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(deeper for key, one in inside for deeper in places(one, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("picker", LOADERS)
def test_damaged_cards_are_weights_errors(tmp_path: Path, picker: str) -> None:
    shipped = find_weights(picker)
    (tmp_path / "mine.safetensors").write_bytes(shipped.read_bytes())
    card = json.loads(card_path(shipped).read_text())
    parts = ("architecture", "preprocessing", "postprocessing")
    targets = [path for path in places(card) if len(path) > 1 and path[0] in parts]
    chooser = random.Random(0)
    messages = []
    for _ in range(25):
        damaged = changed(card, chooser.choice(targets), chooser.choice(STRANGE))
        (tmp_path / "mine.json").write_text(json.dumps(damaged))
        try:
            LOADERS[picker](tmp_path / "mine.safetensors")
        except WeightsError as error:
            messages.append(str(error))
    assert len(messages) >= 8
    assert all("mine." in message for message in messages)


@pytest.mark.parametrize("name", ["window", "neighbours", "heads", "layers"])
@pytest.mark.parametrize("value", [True, -1, 1.5])
def test_numbers_that_the_weights_do_not_tell_are_checked(tmp_path: Path, name: str, value: object) -> None:
    shipped = find_weights("cryotransformer")
    (tmp_path / "mine.safetensors").write_bytes(shipped.read_bytes())
    card = json.loads(card_path(shipped).read_text())
    (tmp_path / "mine.json").write_text(json.dumps(changed(card, ("architecture", name), value)))
    with pytest.raises(WeightsError, match=f"{name} is {value}, expected a whole number"):
        cryotransformer.load_set_model(tmp_path / "mine.safetensors")
