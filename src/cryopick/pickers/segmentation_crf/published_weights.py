"""State dicts of torchvision's FCN and DeepLabv3 as checkpoints: of the authors' notebooks, or of one's own training.

The authors publish no weights; what their notebooks save, and what anyone trains with torchvision, has these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryopick.data.mask_folders import CLASS_NAMES, read_class_names
from cryopick.errors import WeightsError
from cryopick.io.weights import Checkpoint, ModelCard
from cryopick.pickers.published_weights import PublishedWeights
from cryopick.pickers.segmentation_crf.published_network import published_architecture

FIRST, LAST = "backbone.conv1.weight", "classifier.4.weight"
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
"""Under which programs put the tensors of a network in what they save."""
PREFIXES = ("module.", "model.", "backbone.", "net.")
"""Before the names where the network is part of another, such as that of the notebooks with a random field behind."""
UNUSED = ("aux_classifier.", "gausscrf.")
"""Tensors that answer nothing: the auxiliary head, and the constants of the published random field."""
BLOCKS = {50: 5, 101: 22}
"""Number of the last block of the third stage, by depth."""


def recognised(content: Any) -> bool:
    """Whether there are tensors with torchvision's names."""
    return _tensors(content) is not None


def _tensors(content: Any) -> dict[str, Any] | None:
    """The tensors by torchvision's names, wherever they lie in the file."""
    if not isinstance(content, Mapping):
        return None
    for name in CONTAINERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    names = [name for name in content if isinstance(name, str)]
    for prefix in _possible_prefixes():
        if prefix + FIRST in names and any(name.startswith(f"{prefix}classifier.") for name in names):
            return {name.removeprefix(prefix): value for name, value in content.items() if isinstance(name, str)}
    return None


def _possible_prefixes() -> list[str]:
    return ["", *PREFIXES, *(outer + inner for outer in PREFIXES for inner in PREFIXES)]


def read(path: Path, content: Any, companions: Mapping[str, Path]) -> Checkpoint:
    """The weights with a card that says what they are; nothing about them is calibrated.

    Raises
    ------
    WeightsError
        If the network is none of torchvision's four, or names that are not known are among the tensors.
    """
    import torch

    tensors = _tensors(content)
    if tensors is None:
        raise WeightsError(f"{path}: holds no network of torchvision; expected the names {FIRST} and {LAST}")
    unused = sorted({part for part in UNUSED for name in tensors if name.startswith(part)})
    kept = {name: value for name, value in tensors.items() if not name.startswith(UNUSED)}
    unknown = sorted(name for name in kept if not name.startswith(("backbone.", "classifier.")))
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise WeightsError(f"{path}: tensors of unknown names: {', '.join(unknown[:5])}{more}")
    bad = [name for name, value in kept.items() if not isinstance(value, torch.Tensor)]
    if bad:
        raise WeightsError(f"{path}: {bad[0]} is a {type(kept[bad[0]]).__name__}, expected a tensor")
    if LAST not in kept or kept[LAST].ndim != 4 or kept[FIRST].ndim != 4:
        raise WeightsError(
            f"{path}: {FIRST} or {LAST} is missing or no convolution; expected torchvision's FCN or DeepLabv3"
        )
    head = "deeplabv3" if any(name.startswith("classifier.0.convs.") for name in kept) else "fcn"
    classes, in_channels = int(kept[LAST].shape[0]), int(kept[FIRST].shape[1])
    depth = _depth(path, kept)
    names = read_class_names(companions["classes"]) if "classes" in companions else ()
    if names and len(names) != classes:
        raise WeightsError(f"{companions['classes']}: names {len(names)} classes, but {path} has {classes}")
    for name in [one for one in kept if one.endswith(".running_mean")]:  # saved by torch before 0.4.1 without them
        kept.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.zeros((), dtype=torch.long))
    card = ModelCard(
        picker="segmentation-crf",
        architecture=published_architecture(head=head, depth=depth, in_channels=in_channels, classes=classes),
        preprocessing={"normalisation": "two Gaussians, as topaz", "scale": "as stored"},
        postprocessing={"class_names": list(names)},
        licence="that of their authors",
        notes=(
            f"torchvision's {head} on ResNet-{depth}, {in_channels} {_planes(in_channels)}, {classes} "
            f"{'class' if classes == 1 else 'classes'}; scores are not calibrated",
            *(f"left out, because it answers nothing: {part}*" for part in unused),
            *_class_notes(classes, names),
        ),
    )
    return Checkpoint(
        {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}, card, path
    )


def _planes(count: int) -> str:
    return "plane in" if count == 1 else "planes in, each of which is shown the micrograph"


def _class_notes(classes: int, names: tuple[str, ...]) -> list[str]:
    from cryopick.data.mask_folders import particle_class
    from cryopick.errors import SettingsError

    try:
        return [f"class {particle_class(classes, names, where='weights')} is the particle"]
    except SettingsError:
        return [f"which of the {classes} classes is the particle must be said: --particle-class, or {CLASS_NAMES}"]


def _depth(path: Path, tensors: Mapping[str, Any]) -> int:
    numbers = [int(name.split(".")[2]) for name in tensors if name.startswith("backbone.layer3.")]
    last = max(numbers, default=-1)
    for depth, expected in BLOCKS.items():
        if last == expected and "backbone.layer1.0.conv3.weight" in tensors:
            return depth
    raise WeightsError(
        f"{path}: its third stage has {last + 1} blocks; expected torchvision's ResNet-50 (6) or ResNet-101 (23)"
    )


PUBLISHED_WEIGHTS = PublishedWeights(
    about="a state dict of torchvision's FCN or DeepLabv3 on ResNet-50 or -101, .pth",
    recognises=recognised,
    read=read,
    companions={"classes": (CLASS_NAMES,)},
)
