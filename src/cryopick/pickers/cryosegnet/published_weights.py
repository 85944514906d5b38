"""The authors' U-Net, as their program saves it, under the names of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryopick.errors import WeightsError
from cryopick.io.weights import Checkpoint, ModelCard
from cryopick.pickers.cryosegnet.model import PICKER
from cryopick.pickers.cryosegnet.tasks import PUBLISHED_TASK, UNetTask
from cryopick.pickers.published_weights import PublishedWeights
from cryopick.settings import as_plain

FIRST, LAST = "e1.conv.conv.0.weight", "output.weight"
"""Tensors that every such file has: of the first layer, and of the last."""
PARALLEL = "module."
"""Before every name, where the network was trained on several GPUs."""
_BLOCK = {"0": "conv1", "1": "norm1", "3": "conv2", "4": "norm2"}
_GATE = {"Wg.0": "gate_conv", "Wg.1": "gate_norm", "Ws.0": "skip_conv", "Ws.1": "skip_norm", "output.0": "weight_conv"}
_CONVOLUTION = ("weight", "bias")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def author_names(levels: int, *, gates: bool) -> Iterator[tuple[str, str]]:
    """Every tensor's name in the authors' file and in our network; their decoder counts from the coarsest level."""
    blocks = [(f"e{number + 1}.conv.conv", f"encoder.{number}") for number in range(levels)]
    blocks += [("b1.conv", "bottleneck")]
    blocks += [(f"d{levels - number}.c1.conv", f"decoder.{number}.block") for number in range(levels)]
    layers = [(f"{theirs}.{a}", f"{ours}.{b}") for theirs, ours in blocks for a, b in _BLOCK.items()]
    if gates:
        for number in range(levels):
            gate = f"d{levels - number}.ag", f"decoder.{number}.gate"
            layers += [(f"{gate[0]}.{a}", f"{gate[1]}.{b}") for a, b in _GATE.items()]
    for theirs, ours in [*layers, ("output", "head")]:
        parts = _NORM if "norm" in ours.rsplit(".", 1)[-1] else _CONVOLUTION
        yield from ((f"{theirs}.{part}", f"{ours}.{part}") for part in parts)


def is_authors_unet(content: Any) -> bool:
    """Whether a file of torch holds tensors by the names of the authors' U-Net."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return False
    names = {name.removeprefix(PARALLEL) for name in content}
    return {FIRST, LAST} <= names


def read_authors_unet(path: Path, content: Any, companions: Mapping[str, Path]) -> Checkpoint:  # noqa: ARG001  # none
    """The U-Net of `content`, with a card; levels, widths and gates are read off the tensors.

    Raises
    ------
    WeightsError
        If tensors are missing, unknown or of other shapes.
    """
    import torch

    from cryopick.pickers.cryosegnet.network import build_attention_unet

    tensors = {name.removeprefix(PARALLEL): tensor for name, tensor in content.items()}
    wrong = [name for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]
    if wrong:
        raise WeightsError(f"{path}: {wrong[0]} is a {type(tensors[wrong[0]]).__name__}, expected a tensor")
    levels = max(int(found[1]) for name in tensors if (found := re.match(r"e(\d+)\.", name)))
    has_gates = any(re.match(r"d\d+\.ag\.", name) for name in tensors)
    names = dict(author_names(levels, gates=has_gates)) if levels < MOST_LEVELS else {}
    missing, unknown = [name for name in names if name not in tensors], [name for name in tensors if name not in names]
    if missing or unknown:
        raise WeightsError(
            f"{path}: is not the U-Net of CryoSegNet as its program saves it: lacks {_first(missing)}, has unknown "
            f"{_first(unknown)}"
        )
    firsts = [tensors[f"{name}.0.weight"] for name in (*(f"e{n + 1}.conv.conv" for n in range(levels)), "b1.conv")]
    try:
        task = UNetTask(
            **{**PUBLISHED_TASK, "widths": tuple(int(first.shape[0]) for first in firsts), "gates": has_gates}
        )
        architecture = {
            **task.architecture(),
            "in_channels": int(firsts[0].shape[1]),
            "out_channels": int(tensors[LAST].shape[0]),
        }
        with torch.device("meta"):
            own = build_attention_unet(architecture).state_dict()
    except (RuntimeError, IndexError, ValueError) as error:
        raise WeightsError(f"{path}: holds no U-Net that can be built ({error})") from error
    renamed = {names[name]: tensor for name, tensor in tensors.items()}
    misshapen = [name for name in tensors if tensors[name].shape != own[names[name]].shape]
    if misshapen or (architecture["in_channels"], architecture["out_channels"]) != (1, 1):
        name = misshapen[0] if misshapen else FIRST
        raise WeightsError(
            f"{path}: {name} is {tuple(tensors[name].shape)}, expected {tuple(own[names[name]].shape)} of a network "
            "with one channel in and one out; the file is damaged, or of another network"
        )
    card = ModelCard(
        picker=PICKER,
        architecture=architecture,
        preprocessing=task.seen.to_card(),
        postprocessing={"disc_share": 1.0},
        settings={"preset": "program", "task": as_plain(task)},
        data={"kind": "published by the authors of CryoSegNet"},
        licence="as its authors say; their program is under the MIT licence",
        notes=(
            "the authors' U-Net of CryoSegNet (R. Gyawali et al., Brief. Bioinform. 25(4), 2024, bbae282)",
            "scores are not calibrated: they are the U-Net's sigmoid or Segment Anything's predicted IoU",
        ),
    )
    return Checkpoint(renamed, card, path)


MOST_LEVELS = 16


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "nothing"


PUBLISHED_WEIGHTS = PublishedWeights(
    about="the authors' U-Net of CryoSegNet, .pth (Meta's Segment Anything is given by --sam as it is)",
    recognises=is_authors_unet,
    read=read_authors_unet,
    companions={},
)
