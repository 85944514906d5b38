"""Nobody is told that somebody picks."""

from __future__ import annotations

import subprocess
import sys

import pytest

PICKS = """
import socket, sys
import numpy as np

def refuse(*_, **__):
    raise SystemExit("somebody asks for the network")

socket.socket.connect = socket.getaddrinfo = refuse
import cryopick
cryopick.pick(np.random.default_rng(0).normal(size=(300, 300)), diameter="40px")
assert "openvino" in sys.modules
print([name for name in sys.modules if name.split(".")[0] == "openvino_telemetry"])
"""


def test_picking_loads_no_telemetry_of_openvino_and_opens_no_connection() -> None:
    pytest.importorskip("openvino_telemetry", reason="OpenVINO came without the package that reports its use")
    done = subprocess.run([sys.executable, "-c", PICKS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
