"""A graph of OpenVINO, compiled for this CPU, that is shown one tile at a time."""

from __future__ import annotations

import os
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryopick.inference.runtime import load_openvino

if TYPE_CHECKING:
    from openvino import Model


class OpenVinoNetwork:
    """A compiled graph; threads that use it at the same time wait for one another.

    Parameters
    ----------
    graph : one input (1, c, h, w), one output (1, channels, h / stride, w / stride), of any h and w
    is_bfloat16 : whether what the graph leaves in float32 is computed in bfloat16, for which the CPU must have units
    """

    def __init__(self, graph: Model, *, is_bfloat16: bool = False) -> None:
        openvino = load_openvino()
        compiled = openvino.Core().compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if is_bfloat16 else "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads_here(),
                "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
            },
        )
        self._request = compiled.create_infer_request()
        self._lock = RLock()  # the thread that an interrupt left holding it can infer again

    def __call__(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        """(c, h, w) to (channels, h / stride, w / stride)."""
        with self._lock:
            (maps,) = self._request.infer([np.ascontiguousarray(tile)[None]]).values()
            copied: NDArray[np.float32] = maps[0].copy()  # the next tile's answer is written over this one's
        return copied


def threads_here() -> int:
    """Threads that this process may use: OMP_NUM_THREADS, which users and `scale` set, else the cores in sight."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if first.isascii() and first.isdecimal() and int(first) > 0:
        return int(first)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
