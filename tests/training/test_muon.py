"""Muon: orthogonal steps for matrices, AdamW for the rest."""

from pathlib import Path

import pytest
from toy_picker import train_toy

from cryopick.io.weights import read_tensors
from cryopick.training.loop import WEIGHTS_FILE

torch = pytest.importorskip("torch")

from cryopick.training.muon import RMS, VECTOR_RATE, Muon, matrices_first, orthogonalised  # noqa: E402


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
def test_all_singular_values_come_near_one_and_the_directions_stay(shape):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left @ torch.diag(torch.logspace(0, -1, min(shape))) @ right
    inside = left.T @ orthogonalised(matrix) @ right.T
    assert torch.allclose(inside, torch.diag(torch.diagonal(inside)), atol=1e-4)
    assert 0.65 < float(torch.diagonal(inside).min()) <= float(torch.diagonal(inside).max()) < 1.25


def test_what_is_no_matrix_moves_as_adamw_moves_it():
    torch.manual_seed(1)
    start, pulls = torch.randn(5), torch.randn(6, 5)
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = Muon([mine], lr=0.1, weight_decay=0.3), torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.3)
    for pull in pulls:
        for parameter, optimizer in zip((mine, theirs), optimizers, strict=True):
            parameter.grad = pull.clone()
            optimizer.step()
    assert torch.allclose(mine, theirs, atol=1e-6)


def test_a_matrix_moves_by_about_the_same_size_whatever_its_gradient():
    torch.manual_seed(2)
    for size in (1e-6, 1.0, 1e6):
        parameter = torch.nn.Parameter(torch.zeros(32, 8, 3, 3))
        parameter.grad = size * torch.randn(32, 8, 3, 3)
        Muon([{"params": [parameter], "is_matrix": True}], lr=0.1).step()
        assert float(parameter.detach().square().mean().sqrt()) == pytest.approx(0.1 * RMS, rel=0.25)


def test_weights_but_the_last_are_matrices_and_groups_keep_their_settings():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 2, 1)
    )
    frozen_rate = [{"params": list(network[0].parameters()), "lr_factor": 0.1}]
    rest = [{"params": [p for layer in network[1:] for p in layer.parameters()]}]
    groups = matrices_first(network, frozen_rate + rest)
    matrices = [p for group in groups if group["is_matrix"] for p in group["params"]]
    assert [p is q for p, q in zip(matrices, (network[0].weight, network[2].weight), strict=True)] == [True, True]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert [group["lr_factor"] for group in groups] == pytest.approx([0.1, 0.1 * VECTOR_RATE, 1.0, VECTOR_RATE])


def test_a_training_interrupted_and_resumed_ends_with_the_same_weights(tmp_path: Path):
    torch.set_num_threads(1)
    train_toy(tmp_path / "whole", optimizer="muon")
    train_toy(tmp_path / "parts", optimizer="muon", max_minutes=1e-9)
    train_toy(tmp_path / "parts", optimizer="muon", resume=True)
    whole, parts = (read_tensors(tmp_path / name / WEIGHTS_FILE) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
