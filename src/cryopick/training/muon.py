"""Muon: steps along the nearest orthogonal matrix of the momentum; convolutional networks learn from fewer crops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from Jordan's article: all singular values end near 1 after five rounds."""
NEWTON_SCHULZ_ROUNDS = 5
RMS = 0.2
"""Root mean square of an update, about that of AdamW's, so that one learning rate and one decay suit both."""
VECTOR_RATE = 0.4
"""Learning rate of what is no matrix, relative to that of matrices, which bear a higher one."""
MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Muon for weights of convolutions and linear layers, AdamW for everything else.

    Parameters
    ----------
    params : parameters, or groups of them; `is_matrix` of a group says which of the two rules it follows
    lr, weight_decay : of both

    References
    ----------
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024. J. Liu et al., Muon is scalable for
    LLM training, arXiv 2502.16982, 2025, eq. 4 (decay and size of the update).
    """

    def __init__(self, params: Iterable[Any], *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "is_matrix": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure`, where given, is called first, with gradients."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            update = self._orthogonal_update if group["is_matrix"] else self._adam_update
            for parameter in group["params"]:
                if parameter.grad is not None:
                    change = update(self.state[parameter], parameter.grad)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-group["lr"])
        return result

    @staticmethod
    def _orthogonal_update(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        matrix = torch.lerp(gradient, momentum, MOMENTUM).flatten(1)
        return (orthogonalised(matrix) * (RMS * math.sqrt(max(matrix.shape)))).view_as(gradient)

    @staticmethod
    def _adam_update(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        count = float(state["step"])
        moments = []
        for name, value, beta in zip(("mean", "square"), (gradient, gradient * gradient), ADAM_BETAS, strict=True):
            moments.append(state[name].lerp_(value, 1 - beta) / (1 - beta**count))
        mean, square = moments
        return torch.div(mean, square.sqrt() + ADAM_EPSILON)


def orthogonalised(matrix: Tensor) -> Tensor:
    """(m, n) with the same singular vectors and all singular values between about 0.7 and 1.2.

    Odd polynomials of a matrix change its singular values alone; five rounds of one bring all that are not tiny near 1.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = torch.div(x, x.norm() + 1e-7)
    # Every round multiplies by a polynomial of the Gram matrix, so that rounds can run on that small matrix alone
    a, b, c = NEWTON_SCHULZ
    identity = torch.eye(len(x), dtype=x.dtype, device=x.device)
    gram, product = x @ x.T, identity
    for _ in range(NEWTON_SCHULZ_ROUNDS):
        factor = a * identity + b * gram + c * gram @ gram
        gram = factor @ gram @ factor
        product = factor @ product
    x = product @ x
    return x.T if is_tall else x


def matrices_first(network: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of parameters divided into weights of several dimensions but the network's last, and the rest.

    `lr_factor` multiplies the learning rate of a group, as in `GroupsParameters`.
    The last layer's rows are unlike outputs, which are not to be made orthogonal (Jordan et al.).
    """
    matrices = [p for p in network.parameters() if p.ndim > 1]
    hidden = {id(p) for p in matrices[:-1]}
    divided = []
    for group in groups:
        for is_matrix in (True, False):
            members = [p for p in group["params"] if (id(p) in hidden) == is_matrix]
            if members:
                rate = group.get("lr_factor", 1.0) * (1.0 if is_matrix else VECTOR_RATE)
                divided.append({**group, "params": members, "is_matrix": is_matrix, "lr_factor": rate})
    return divided
