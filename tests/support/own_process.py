"""A part of a test in a process of its own.

A process that has run thousands of tests, with every library in it, is no place to start the worker processes of a
training in: users' trainings are processes of their own. (Seen there: a segmentation fault in the wait for a worker,
once compiled networks had been at work, while a fault handler's stack for signals was set.)
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent


def said_by(script: str, *arguments: str | Path) -> str:
    """What a Python script prints that finds this folder's modules; it may not fail."""
    search = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
