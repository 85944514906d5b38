"""What a job runs, as `python -P -m` this module with the options of `dask worker`: workers that serve a scheduler.

It looks first whether the scheduler can be reached, and ends with one sentence where it cannot: a job that starts when
its run is long gone, or on a node from which no way leads there, then ends at once instead of waiting.
"""

from __future__ import annotations

import socket
import sys
import time
from urllib.parse import urlsplit

UNREACHABLE = "cryopick: cannot reach"
"""Begins the sentence in the log of a job."""
REACH_SECONDS = 8.0
"""For a scheduler to answer: it is there before any job is asked for, so more would only keep jobs of a killed run."""
EXIT_STATUS = 75  # EX_TEMPFAIL


def why_unreachable(address: str, *, seconds: float = REACH_SECONDS) -> str:
    """Empty where somebody listens at `tls://HOST:PORT`, else what the system says after trying for so long."""
    parts = urlsplit(address)
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=seconds):
                return ""
        except OSError as error:
            reason = error.strerror or str(error)
        if time.monotonic() > end:
            return reason
        time.sleep(1.0)


def main() -> None:
    address = sys.argv[1]
    if reason := why_unreachable(address):
        sys.stderr.write(f"{UNREACHABLE} {address}: {reason}\n")
        raise SystemExit(EXIT_STATUS)
    from distributed.cli.dask_worker import main as serve

    serve()


if __name__ == "__main__":
    main()
