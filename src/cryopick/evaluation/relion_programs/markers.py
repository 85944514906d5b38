"""The files by which RELION's jobs say how they ended, and by which they are asked to end."""

from __future__ import annotations

from pathlib import Path

ABORT = "RELION_JOB_ABORT_NOW"
SUCCESS, FAILURE, ABORTED = (f"RELION_JOB_EXIT_{word}" for word in ("SUCCESS", "FAILURE", "ABORTED"))


def remove_markers(folder: Path) -> None:
    """Remove all that an earlier call left: after a success and a failure both files lie there."""
    for marker in (SUCCESS, FAILURE, ABORTED, ABORT):
        (folder / marker).unlink(missing_ok=True)
