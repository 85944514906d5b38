"""Which library runs the network of `general`: the one home of that choice."""

from __future__ import annotations

import sys
from typing import Any

from cryopick.extras import is_installed, modules_of, require_extra

OPENVINO, TORCH = "OpenVINO", "torch"


def runtime_on(device: str) -> str:
    """OpenVINO on the CPU, torch on a graphics card; torch on the CPU, too, on systems that have no OpenVINO.

    Parameters
    ----------
    device : cpu, cuda, cuda:N or mps
    """
    return OPENVINO if device == "cpu" and is_installed("openvino") else TORCH


def load_openvino() -> Any:
    """The package `openvino`, imported so that it reports nothing to anybody.

    At its import it sends an event to its makers' analytics where the package `openvino_telemetry`, which it installs,
    can be imported; where that fails it takes a stub of its own that sends nothing.
    """
    name = "openvino_telemetry"
    if "openvino" not in sys.modules and name not in sys.modules:
        sys.modules[name] = None  # type: ignore[assignment]  # so that Python calls it missing
        try:
            import openvino
        finally:
            del sys.modules[name]
    import openvino

    return openvino


def require_runtime(picker: Any) -> None:
    """Raise, before anything is read, if a picker's networks run by a library that is not installed.

    Raises
    ------
    MissingExtraError
        With the command that installs it. A picker says by `needs_extra` what it needs.
    """
    extra = getattr(picker, "needs_extra", "")
    if extra:
        require_extra(extra, modules_of(extra), f"picker {getattr(picker, 'name', type(picker).__name__)}")
