"""Everything that a training run needs to go on exactly where it was: one safetensors file, no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryopick.errors import RunFolderError, WeightsError
from cryopick.io.weights import read_tensors_and_metadata, write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

STATE_FILE = "state.safetensors"
LABELS_DIGEST = "labels_sha256"
"""What of a training's record tells whether the labels are still the same; version 0.1 did not note it."""
_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."


@dataclass
class Progress:
    """Where a run stands. The position in the data and every random state follow from `step` and the seed."""

    step: int = 0
    """Completed optimizer steps."""
    seconds: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    validations_without_gain: int = 0
    validations_on_plateau: int = 0
    """Without gain, since the learning rate last fell."""
    plateaus: int = 0
    """How often the learning rate has fallen, where the schedule is `plateau`."""
    is_finished: bool = False
    scaler: dict[str, float] = field(default_factory=dict)
    """State of the loss scaler of 16-bit training."""


class WeightAverage:
    """Exponential moving average of a network's weights and buffers (Polyak and Juditsky, 1992).

    The decay rises as (1 + t) / (10 + t) to its full value, so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        from copy import deepcopy

        self.decay = decay
        self.network = deepcopy(network).eval().requires_grad_(False)

    def update(self, network: nn.Module, *, step: int) -> None:
        import torch

        decay = min(self.decay, (1 + step) / (10 + step))
        own, new = self.network.state_dict(), network.state_dict()
        with torch.no_grad():
            floating = [name for name, tensor in own.items() if tensor.is_floating_point()]
            torch._foreach_lerp_([own[name] for name in floating], [new[name] for name in floating], 1 - decay)
            for name in own.keys() - set(floating):
                own[name].copy_(new[name])


def save_state(
    path: Path,
    progress: Progress,
    *,
    model: nn.Module,
    average: nn.Module,
    optimizer: optim.Optimizer,
    fingerprint: Mapping[str, Any],
) -> None:
    """Write the state atomically; the previous one stays until the new one is complete."""
    import torch

    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    tensors |= {_AVERAGE + name: tensor for name, tensor in average.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{_OPTIMIZER}{index}.{name}"] = value
    metadata = {"progress": json.dumps(asdict(progress)), "fingerprint": json.dumps(dict(fingerprint), sort_keys=True)}
    write_tensors(path, tensors, metadata=metadata)


def read_progress(path: Path, *, fingerprint: Mapping[str, Any] | None = None) -> Progress:
    """Where the run of a state file stands; with `fingerprint`, refuse a state of other settings or data.

    Raises
    ------
    WeightsError
        If the file is damaged.
    RunFolderError
        If it belongs to other settings or data; the differences are listed.
    """
    _, progress = _read(path, fingerprint)
    return progress


def load_state(
    path: Path,
    *,
    model: nn.Module,
    average: nn.Module,
    optimizer: optim.Optimizer,
    fingerprint: Mapping[str, Any],
) -> Progress:
    """Fill model, average and optimizer from a state file; raises as `read_progress`."""
    tensors, progress = _read(path, fingerprint)
    try:
        model.load_state_dict(_below(tensors, _MODEL))
        average.load_state_dict(_below(tensors, _AVERAGE))
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit the network: {error}") from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, _OPTIMIZER).items():
        index, _, key = name.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise WeightsError(f"{path}: does not fit the optimizer: {name} of {len(parameters)} parameters")
        parameter = parameters[int(index)]
        if tensor.ndim and tensor.shape != parameter.shape:
            shapes = f"{name} is {tuple(tensor.shape)}, expected {tuple(parameter.shape)}"
            raise WeightsError(f"{path}: does not fit the optimizer: {shapes}")
        state.setdefault(int(index), {})[key] = _laid_out_as(parameter, tensor)
    groups = optimizer.state_dict()["param_groups"]
    for group in groups:
        kinds = {index: sorted(state[index]) for index in group["params"] if index in state}
        first = next(iter(kinds), 0)
        for index, names in kinds.items():
            if names != kinds[first]:
                raise WeightsError(
                    f"{path}: does not fit the optimizer: parameter {index} has {', '.join(names)}, "
                    f"parameter {first} {', '.join(kinds[first])}"
                )
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (KeyError, ValueError, RuntimeError) as error:  # what an optimizer misses of its own
        raise WeightsError(f"{path}: does not fit the optimizer ({error!r})") from error
    return progress


def _laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor with the strides of the parameter that it belongs to.

    Files hold tensors row by row. Fused optimizers walk through the memory of parameter, gradient and moments side by
    side without a look at strides, so that moments laid out otherwise would meet the wrong weights.
    """
    import torch

    if not tensor.ndim:  # a count of steps
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device, requires_grad=False).copy_(tensor)


def _read(path: Path, fingerprint: Mapping[str, Any] | None) -> tuple[dict[str, Tensor], Progress]:
    tensors, metadata = read_tensors_and_metadata(path)
    try:
        progress = Progress(**json.loads(metadata["progress"]))
        stored = json.loads(metadata["fingerprint"])
        if not isinstance(stored, dict):
            raise TypeError("the fingerprint is no JSON object")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is not a training state of this version of cryopick ({error!r})") from error
    if fingerprint is not None:
        wanted = json.loads(json.dumps(dict(fingerprint), sort_keys=True))
        differing = [
            f"{name} was {stored.get(name)!r}, is {wanted.get(name)!r}"
            for name in sorted(stored.keys() | wanted.keys())
            if stored.get(name) != wanted.get(name) and not (name == LABELS_DIGEST and name not in stored)
        ]
        if differing:
            raise RunFolderError(
                f"{path.parent}: was trained with other settings: {'; '.join(differing)}; "
                "resume with the same settings, or train into a new folder"
            )
    return tensors, progress


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
