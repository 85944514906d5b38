"""What somebody who should not be let in tries against a scheduler of Dask's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

_SECURITY = {
    "plain": "None",
    "without a certificate": "Security(require_encryption=True)",
    "with another certificate": "Security.temporary()",
}
_CALL = """
from distributed import Client
from distributed.security import Security
with Client({address!r}, security={security}, timeout=3) as client:
    print("let in", client.submit(lambda: 1 + 1).result(timeout=8), flush=True)
"""


def strangers_let_in(address: str) -> list[str]:
    """Which clients get an answer of those that come in plain, without a certificate and with another certificate.

    Each is a process of its own, at the same time; one that is kept waiting for half a minute is not let in.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    callers = {}
    for how, security in _SECURITY.items():
        called = address.replace("tls://", "tcp://") if how == "plain" else address
        script = _CALL.format(address=called, security=security)
        callers[how] = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
    return [how for how, process in callers.items() if "let in" in _said(process, seconds=30)]


def _said(process: subprocess.Popen[str], *, seconds: float) -> str:
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def answer_over_http(port: int, path: str) -> Any:
    """Status of a page of a port of this machine; the error where there is none."""
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
    except (URLError, OSError) as error:
        return str(error)
