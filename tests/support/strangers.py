"""What somebody who should not be let in tries against a scheduler of Dask's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

_CALL = """
import sys
from distributed import Client
from distributed.security import Security
address = sys.argv[1]
for how, security in (
    ("plain", None), ("without", Security(require_encryption=True)), ("with another", Security.temporary())
):
    called = address.replace("tls://", "tcp://") if security is None else address
    try:
        with Client(called, security=security, timeout=3) as client:
            print(how, "let in", client.submit(lambda: 1 + 1).result(timeout=8))
    except Exception as error:
        print(how, "refused")
"""


def calls_of_strangers(address: str) -> dict[str, str]:
    """What clients find that come in plain, without a certificate and with another certificate."""
    done = subprocess.run(
        [sys.executable, "-c", _CALL, address],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith("DASK_")},
    )
    return {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in done.stdout.splitlines()}


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
