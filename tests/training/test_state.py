"""A training state: what goes on from it takes the very steps that would have come without it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cryopick.errors import WeightsError
from cryopick.io.weights import read_tensors_and_metadata, write_tensors
from cryopick.training.loop import _make_optimizer
from cryopick.training.state import Progress, WeightAverage, load_state, save_state
from cryopick.training.trainable import TrainSettings

FORMATS = {"channels last": torch.channels_last, "row by row": torch.contiguous_format}


class Run:
    """A convolutional network, its average and its optimizer, as the training loop holds them."""

    def __init__(self, optimizer: str, memory_format: torch.memory_format) -> None:
        torch.manual_seed(0)
        first, second, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Conv2d(4, 2, 1)
        network = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, last)
        self.network = network.to(memory_format=memory_format)
        self.average = WeightAverage(self.network, decay=0.9)
        settings = TrainSettings(optimizer=optimizer, learning_rate=0.01)  # type: ignore[arg-type]
        self.optimizer = _make_optimizer(None, self.network, settings)  # type: ignore[arg-type]
        self.steps = 0

    def step(self) -> None:
        torch.manual_seed(self.steps)
        self.network(torch.randn(2, 3, 12, 12)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.network, step=self.steps)
        self.steps += 1

    def save(self, path: Path) -> None:
        progress = Progress(step=self.steps)
        save_state(
            path, progress, model=self.network, average=self.average.network, optimizer=self.optimizer, fingerprint={}
        )

    def load(self, path: Path) -> None:
        progress = load_state(
            path, model=self.network, average=self.average.network, optimizer=self.optimizer, fingerprint={}
        )
        self.steps = progress.step

    def tensors(self) -> dict[str, Any]:
        moments = {
            f"{index}.{name}": value
            for index, values in self.optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        average = {f"average.{name}": value for name, value in self.average.network.state_dict().items()}
        return {**self.network.state_dict(), **average, **moments}


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_a_resumed_run_takes_the_steps_of_an_undisturbed_one_bit_for_bit(tmp_path, optimizer, memory_format):
    undisturbed, killed, resumed = (Run(optimizer, FORMATS[memory_format]) for _ in range(3))
    for _ in range(7):
        undisturbed.step()
    for _ in range(4):
        killed.step()
    killed.save(tmp_path / "state.safetensors")
    resumed.load(tmp_path / "state.safetensors")
    for _ in range(3):
        resumed.step()
    expected, found = undisturbed.tensors(), resumed.tensors()
    assert expected.keys() == found.keys()
    assert [name for name, one in expected.items() if not torch.equal(one, found[name])] == []


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_moments_lie_in_memory_as_their_parameters_do(tmp_path, optimizer):
    killed, resumed = (Run(optimizer, torch.channels_last) for _ in range(2))
    killed.step()
    killed.save(tmp_path / "state.safetensors")
    resumed.load(tmp_path / "state.safetensors")
    laid_out = 0
    for parameter, values in resumed.optimizer.state.items():
        for value in values.values():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.ndim == 4:
                assert value.stride() == parameter.stride()
                laid_out += 1
    assert laid_out >= 3


def test_a_state_of_another_network_or_optimizer_is_refused_by_name(tmp_path):
    run = Run("adamw", torch.channels_last)
    run.step()
    run.save(tmp_path / "state.safetensors")
    tensors, metadata = read_tensors_and_metadata(tmp_path / "state.safetensors")
    write_tensors(tmp_path / "more.safetensors", {**tensors, "optimizer.99.exp_avg": torch.zeros(2)}, metadata=metadata)
    with pytest.raises(WeightsError, match=r"does not fit the optimizer: 99.exp_avg of 8 parameters"):
        run.load(tmp_path / "more.safetensors")
    cut = {name: one[:1] if name == "optimizer.0.exp_avg" else one for name, one in tensors.items()}
    write_tensors(tmp_path / "cut.safetensors", cut, metadata=metadata)
    with pytest.raises(WeightsError, match=r"does not fit the optimizer: 0.exp_avg is \(1, 3, 3, 3\)"):
        run.load(tmp_path / "cut.safetensors")
    for lost in ("step", "exp_avg"):
        other = {f"{name}_" if name == f"optimizer.2.{lost}" else name: one for name, one in tensors.items()}
        write_tensors(tmp_path / "lost.safetensors", other, metadata=metadata)
        with pytest.raises(WeightsError, match=rf"does not fit the optimizer: parameter 2 has .*{lost}_"):
            run.load(tmp_path / "lost.safetensors")
    for broken in ({**metadata, "progress": "[]"}, {**metadata, "fingerprint": "[1]"}, {"progress": json.dumps({})}):
        write_tensors(tmp_path / "broken.safetensors", tensors, metadata=broken)
        with pytest.raises(WeightsError, match="is not a training state"):
            run.load(tmp_path / "broken.safetensors")
