"""On what device and in which numbers a run computes: settled as it begins, kept in its folder, held to later."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cryopick.errors import WorkerError
from cryopick.inference.computing import Computing, computing_here, remedy, runtime_of, why_not_here
from cryopick.inference.runtime import TORCH
from cryopick.runs.folder import COMPUTING, RunFolder

_log = logging.getLogger(__name__)


def settle_computing(
    folder: RunFolder, picker: Any, *, is_begun: bool, ask: Callable[[Any], Computing] = computing_here
) -> Computing:
    """What the run in a folder computes with, which is noted there when it begins.

    Parameters
    ----------
    is_begun : whether a micrograph is finished; before that, what an earlier call noted binds nobody
    ask : what the picker's settings mean where it will run; another machine may have to be asked

    Raises
    ------
    SettingsError
        If the picker's device is not there, or cannot compute as it is asked to.
    """
    known = read_computing(folder) if is_begun else None
    if known is None:
        known = ask(picker)
        folder.write(folder.path / COMPUTING, json.dumps(asdict(known)) + "\n", is_durable=True)
    elif (here := runtime_of(picker, known.device)) and here != (known.runtime or TORCH):
        _log.warning(
            "%s: was begun with %s and goes on with %s, which computes %s, too: scores may differ by rounding",
            *(folder.path, known.runtime or TORCH, here, known.text),
        )
    return known


def read_computing(folder: RunFolder) -> Computing | None:
    """What the run in a folder computes with; None where it has no note, as in older runs, or a damaged one."""
    path = folder.path / COMPUTING
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        device, precision, runtime = content["device"], content["precision"], content.get("runtime", "")
        if not (isinstance(device, str) and device and isinstance(precision, str) and isinstance(runtime, str)):
            raise ValueError("expected texts")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _log.warning("%s is damaged (%.200s) and is made again, from what this machine has", path, error)
        return None
    return Computing(device=device, precision=precision, runtime=runtime)


def require_computing_here(folder: RunFolder, picker: Any, computing: Computing) -> None:
    """Raise `WorkerError` that says what to do where this machine cannot compute as the run does."""
    why = why_not_here(picker, computing)
    if not why:
        return
    options = remedy(picker, computing)
    raise WorkerError(
        f"{folder.path}: is picked {computing.text}, and this machine cannot go on with that: {why}. Go on where it "
        f"was begun; or pick everything again here, {f'with {options} --overwrite, ' if options else ''}"
        f"{'which any machine can go on with' if options else 'with --overwrite'}; or choose another folder with -o"
    )
