"""The authors' weights, and those of others that a training may start from: ResNets of ImageNet, a DETR of COCO.

All are dicts saved by torch. The authors' programs are DETR's, so their checkpoints are `{"model": tensors, "args":
argparse.Namespace, ...}` with DETR's names, of which only the prefix of the backbone differs from ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryopick.errors import WeightsError
from cryopick.io.weights import Checkpoint, ModelCard
from cryopick.pickers.cryotransformer.detr_model import LONGEST_SIDE_PX, NETWORK, SHORT_SIDE_PX
from cryopick.pickers.published_weights import PublishedWeights

if TYPE_CHECKING:
    from torch import Tensor

    from cryopick.pickers.cryotransformer.detr_network import DetectionTransformer

BACKBONE_PREFIX = "backbone.0.body."
"""Of DETR's names; ours is `backbone.`."""
CLASSIFIER_OF_IMAGENET = ("fc.weight", "fc.bias")
BATCHES_SEEN = ".num_batches_tracked"
"""End of the names of counters that frozen norms do without."""
NEW_ON_START = ("class_embed.", "query_embed.")
"""What the program takes from no DETR of COCO: that one has 92 classes and 100 queries."""
DEFAULT_HEADS = 8
"""Of DETR and of the article; the number of heads is in no shape, only in the arguments saved along."""
NOTE_ON_SCORES = "scores are not calibrated; nothing is known of what they are worth"
NOTE_ON_CLASSES = (
    "the published program trains particles as the class of nothing, so that its scores do not tell particles from "
    "background"
)


def recognises(content: Any) -> bool:
    """Whether a file holds the weights of a DETR, at the top or under `model`."""
    tensors = _tensors_in(content)
    return {"query_embed.weight", "class_embed.weight", "input_proj.weight"} <= set(tensors)


def read(path: Path, content: Any, companions: Mapping[str, Path]) -> Checkpoint:  # noqa: ARG001  # there are none
    """The authors' weights with a card in our terms.

    Raises
    ------
    WeightsError
        If tensors are unknown or missing, or are of a network that CryoTransformer is not.
    """
    tensors = {_our_name(name): tensor for name, tensor in _tensors_in(content).items()}
    arguments = (
        vars(content["args"]) if isinstance(content, Mapping) and hasattr(content.get("args"), "__dict__") else {}
    )
    architecture = architecture_of(tensors, arguments, where=str(path))
    card = ModelCard(
        picker="cryotransformer",
        architecture=architecture,
        preprocessing={
            "denoising": "published",
            "behaviour": "published",
            "short_px": SHORT_SIDE_PX,
            "longest_px": LONGEST_SIDE_PX,
        },
        data={"kind": "published", "epoch": _whole_number(content, "epoch")},
        licence="that of the authors",
        notes=(f"the authors' weights of CryoTransformer; {NOTE_ON_SCORES}", NOTE_ON_CLASSES),
    )
    kept = {name: tensor.float() for name, tensor in tensors.items() if not name.endswith(BATCHES_SEEN)}
    _require_names(kept, architecture, where=str(path))
    return Checkpoint(kept, card, path)


PUBLISHED_WEIGHTS = PublishedWeights(
    about="the authors' detection transformer, .pth", recognises=recognises, read=read, companions={}
)


def architecture_of(tensors: Mapping[str, Tensor], arguments: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The architecture that a card tells, read off names and shapes; heads and dropout off the saved arguments.

    Parameters
    ----------
    tensors : by our names
    arguments : of the authors' program; DETR's defaults where it has saved none
    where : the file, for errors
    """
    others = {"dilation": "a dilated backbone (DC5)", "pre_norm": "norms before its sums", "masks": "masks"}
    for name, what in others.items():
        if arguments.get(name):
            raise WeightsError(f"{where}: a network with {what}, which CryoTransformer has not")
    classes = _shape(tensors, "class_embed.weight", where)[0]
    if classes != 2:
        raise WeightsError(
            f"{where}: a network of {classes} classes, expected the 2 of CryoTransformer; a DETR of COCO is something "
            "to start a training from: cryopick train cryotransformer --as program --set coco_weights=FILE"
        )
    depths = tuple(_layers(tensors, rf"backbone\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    is_deep = "backbone.layer1.0.conv3.weight" in tensors
    backbone = next((name for name, (known, deep) in _backbones().items() if known == depths and deep == is_deep), None)
    if backbone is None:
        raise WeightsError(f"{where}: a backbone of {depths} blocks, expected one of: {', '.join(_backbones())}")
    layers = _layers(tensors, r"transformer\.encoder\.layers\.(\d+)\.")
    if layers != _layers(tensors, r"transformer\.decoder\.layers\.(\d+)\."):
        raise WeightsError(f"{where}: encoder and decoder of different numbers of layers, expected equal ones")
    queries, width = _shape(tensors, "query_embed.weight", where)
    heads = int(arguments.get("nheads", DEFAULT_HEADS))
    if heads < 1 or width % (4 * heads):
        raise WeightsError(f"{where}: {width} channels and {heads} heads, expected a multiple of 4 times the heads")
    return {
        "network": NETWORK,
        "backbone": backbone,
        "backbone_width": _shape(tensors, "backbone.conv1.weight", where)[0],
        "queries": queries,
        "width": width,
        "heads": heads,
        "layers": layers,
        "feed_width": _shape(tensors, "transformer.encoder.layers.0.linear1.weight", where)[0],
        "dropout": float(arguments.get("dropout", 0.1)),
    }


# --------------------------------------------------------------------------------------------- starts of trainings


def start_backbone(network: DetectionTransformer, path: Path) -> None:
    """Give the backbone the weights of a ResNet of ImageNet, norms included.

    Raises
    ------
    WeightsError
        If the file cannot be read, or is not exactly the network's ResNet (its classifier is left out).
    """
    content = _read(path)
    tensors = {
        name: tensor
        for name, tensor in _tensors_in(content).items()
        if name not in CLASSIFIER_OF_IMAGENET and not name.endswith(BATCHES_SEEN)
    }
    own = network.backbone.state_dict()
    _require_equal(own, tensors, where=f"{path}: not the ResNet that is trained")
    network.backbone.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


def start_from_coco(network: DetectionTransformer, path: Path) -> frozenset[str]:
    """Give the network what fits of a DETR of COCO, as the program does: neither class head nor queries.

    Where the backbones differ in depth, the blocks that they have in common are taken, and their norms with them; the
    program starts ResNet-152 so from a ResNet-101.

    Returns
    -------
    norms : names of the norms of the backbone that were taken

    Raises
    ------
    WeightsError
        If the file is no DETR, or a shape differs.
    """
    content = _read(path)
    if not recognises(content):
        raise WeightsError(f"{path}: no DETR; expected its tensors query_embed.weight and others under `model`")
    tensors = {
        _our_name(name): tensor.float()
        for name, tensor in _tensors_in(content).items()
        if not name.startswith(NEW_ON_START) and not name.endswith(BATCHES_SEEN)
    }
    own = network.state_dict()
    differing = [
        f"{name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    foreign = [name for name in tensors if name not in own and not name.startswith("backbone.layer")]
    if differing or foreign:
        told = [*differing, *(f"unknown {name}" for name in foreign)]
        raise WeightsError(f"{path}: does not fit the network: {'; '.join(told[:3])}")
    fitting = {name: tensor for name, tensor in tensors.items() if name in own}
    network.load_state_dict({**own, **fitting})
    ends = ("backbone.", ".running_mean")
    return frozenset(name.removeprefix(ends[0]).removesuffix(ends[1]) for name in fitting if name.endswith(ends[1]))


# ---------------------------------------------------------------------------------------------------------- names


def _read(path: Path) -> Any:
    from cryopick.io.torch_files import read_torch_file

    return read_torch_file(path)


def _tensors_in(content: Any) -> dict[str, Any]:
    """Tensors by name, at the top of a file's content or under `model`; none where it is something else."""
    import torch

    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        return {}
    return {str(name): one for name, one in content.items() if isinstance(one, torch.Tensor)}


def _our_name(name: str) -> str:
    if name.startswith(BACKBONE_PREFIX):
        return f"backbone.{name.removeprefix(BACKBONE_PREFIX)}"
    return name


def _backbones() -> dict[str, tuple[tuple[int, ...], bool]]:
    """Blocks of each stage, and whether they are bottlenecks."""
    from cryopick.pickers.cryotransformer.resnet import BACKBONE_DEPTHS, BASIC_BACKBONES

    return {name: (depths, name not in BASIC_BACKBONES) for name, depths in BACKBONE_DEPTHS.items()}


def _layers(tensors: Mapping[str, Any], pattern: str) -> int:
    """How many numbers occur at the place of the pattern."""
    found = (re.match(pattern, name) for name in tensors)
    return len({match[1] for match in found if match})


def _shape(tensors: Mapping[str, Tensor], name: str, where: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].dim() < 1:
        raise WeightsError(f"{where}: lacks the tensor {name}; expected the whole checkpoint of a DETR")
    return tuple(tensors[name].shape)


def _whole_number(content: Any, name: str) -> int | None:
    value = content.get(name) if isinstance(content, Mapping) else None
    return value if isinstance(value, int) else None


def _require_names(tensors: Mapping[str, Tensor], architecture: Mapping[str, Any], *, where: str) -> None:
    """Raise `WeightsError` that names what is unknown, missing or of another shape."""
    import torch

    from cryopick.pickers.cryotransformer.detr_model import build_detr

    with torch.device("meta"):
        own = build_detr(architecture).state_dict()
    _require_equal(own, tensors, where=f"{where}: not the network of CryoTransformer")


def _require_equal(own: Mapping[str, Any], tensors: Mapping[str, Any], *, where: str) -> None:
    told = [f"has unknown {name}" for name in tensors if name not in own]
    told += [f"lacks {name}" for name in own if name not in tensors]
    told += [
        f"{name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if told:
        more = f" and {len(told) - 5} more" if len(told) > 5 else ""
        raise WeightsError(f"{where}: {'; '.join(told[:5])}{more}")
