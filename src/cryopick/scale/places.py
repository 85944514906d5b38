"""Where work is done, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryopick.errors import SettingsError
from cryopick.scale.executor import Executor

HERE = "here"


def open_executor(
    where: str = HERE,
    *,
    entry: str,
    state: Any,
    workers: int = 1,
    time_limit_s: float | None = None,
    environments: Sequence[Mapping[str, str]] = (),
    is_beside: bool = False,
) -> Executor:
    """The executor of a place; whoever opens it closes it.

    Parameters
    ----------
    where : `here`, which is this machine
    entry, state : see `cryopick.scale.executor`
    workers : here, processes side by side; 1 stays in this process unless something is asked for that only another
        process can keep: a time limit, or an environment
    time_limit_s : for one item, in seconds, see `Processes`
    environments : environment variables of the workers, in turn
    is_beside : even one worker is another process, so that waiting for it takes no longer than it is told to

    Raises
    ------
    SettingsError
        If there is no such place.
    """
    from cryopick.scale.in_process import InProcess
    from cryopick.scale.process_pool import Processes

    if where != HERE:
        raise SettingsError(f"no place called {where!r} to work at; expected {HERE!r}, which is this machine")
    if workers <= 1 and not (time_limit_s or environments or is_beside):
        return InProcess(entry, state)
    return Processes(entry, state, workers=workers, time_limit_s=time_limit_s, environments=environments)
