"""How networks of torch are kept in memory: with the channels of a pixel side by side, which CPUs and cards like."""

from __future__ import annotations

from typing import Any, TypeVar, cast

Network = TypeVar("Network")


def channels_last(network: Network) -> Network:
    """The network of torch itself, its convolutions' weights with channels last."""
    import torch

    # some versions of torch do not declare the argument, which all of them take
    cast(Any, network).to(memory_format=torch.channels_last)
    return network
