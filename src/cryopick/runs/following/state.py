"""What a run folder says of itself while it is followed: `state.json`, which is there only until the run is final."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cryopick.runs.folder import STATE, RunFolder

FOLLOWING, ENDING = "following", "ending"


@dataclass(frozen=True, kw_only=True)
class FollowState:
    """How far a run that is followed has come.

    Parameters
    ----------
    state : `following`, or `ending` once it makes what is final; a call that finds that does it again
    since : when this call began, ISO 8601 in UTC
    complete : micrographs that are there and whole
    picked : of them those with a record, failed ones too
    stale : of them those that will be picked again, since the run would pick otherwise now
    backlog : complete and not picked yet, or to be picked again
    working_diameter : as it is told, such as `180A`; "" where nothing was measured
    settled : whether the size stays
    threshold : in force
    pid, host : of the process that writes the run
    """

    state: Literal["following", "ending"]
    since: str
    complete: int = 0
    picked: int = 0
    stale: int = 0
    backlog: int = 0
    working_diameter: str = ""
    settled: bool = False
    threshold: float | None = None
    pid: int = 0
    host: str = ""


def now_text() -> str:
    """The time of day, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_state(folder: RunFolder, state: FollowState) -> None:
    """Write `state.json`, whole or not at all."""
    content = asdict(state) | {"pid": os.getpid(), "host": socket.gethostname()}
    folder.write(folder.path / STATE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def read_state(folder: RunFolder) -> dict[str, Any] | None:
    """What `state.json` says; None where there is none, so that the run is final. A damaged one says `following`."""
    try:
        content = json.loads((folder.path / STATE).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("state") not in (FOLLOWING, ENDING):
            raise ValueError("no state of a run that is followed")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {"state": FOLLOWING}
    return content


def remove_state(folder: RunFolder) -> None:
    """The run is final."""
    with folder.writing(folder.path / STATE):
        (folder.path / STATE).unlink(missing_ok=True)
