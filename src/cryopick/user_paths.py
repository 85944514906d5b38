"""Paths as people type them: `~` is the home folder also where no shell has replaced it (`--output=~/run`, lists)."""

from __future__ import annotations

import os

from cryopick.errors import InputError


def with_home_folder(path: str) -> str:
    """The path with a leading `~` or `~user` replaced, unless a file of just this name exists.

    Raises
    ------
    InputError
        If there is no such user.
    """
    if not path.startswith("~") or os.path.lexists(path):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and "/" in path:
        user = path.partition("/")[0]
        raise InputError(f"{path}: no home folder for {user} is known; write the path in full")
    return expanded
