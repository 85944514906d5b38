"""Which library runs the network of `general`: the one home of that choice."""

from __future__ import annotations

from cryopick.extras import is_installed

OPENVINO, TORCH = "OpenVINO", "torch"


def runtime_on(device: str) -> str:
    """OpenVINO on the CPU, torch on a graphics card; torch on the CPU, too, on systems that have no OpenVINO.

    Parameters
    ----------
    device : cpu, cuda, cuda:N or mps
    """
    return OPENVINO if device == "cpu" and is_installed("openvino") else TORCH
