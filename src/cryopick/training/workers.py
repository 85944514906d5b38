"""Processes that make batches and crops beside the training."""

from __future__ import annotations

import signal

WORKER_START = "spawn"
"""Workers are no copies of the training process, whose threads (OpenCV's, OpenMP's) may hold locks; and they are its
children, not those of a server process, so that they notice when it is killed and end too."""


def prepare_worker(_worker: int) -> None:
    """Workers leave stopping to the training process, and use one core each."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)
