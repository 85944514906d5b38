"""The files that the settings of a run name besides its micrographs: weights, references, models.

A run may go on only with the same ones: picks of two weights files would stand side by side, although the settings,
which name both by one path, are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from cryopick.errors import CryopickError, RunFolderError
from cryopick.io.weights import find_weights
from cryopick.runs.folder import FILES, RunFolder
from cryopick.settings import settings_of

_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")
"""Of files that a setting may name which takes names of models too."""


def record_files(folder: RunFolder, picker: Any) -> None:
    """Note what is in the files that a picker's settings name, for a run that begins."""
    digests = _digests(picker)
    if digests:
        folder.write(folder.path / FILES, json.dumps(digests, indent=1) + "\n", is_durable=True)
    else:
        with folder.writing(folder.path / FILES):
            (folder.path / FILES).unlink(missing_ok=True)


def require_same_files(folder: RunFolder, picker: Any) -> None:
    """Raise `RunFolderError` if a file that the settings of a run name holds something else than when it began.

    A run of version 0.1, or one whose note is damaged, has the files of now noted.
    """
    changed = overwritten_files(folder, picker)
    if changed:
        files = ", ".join(f"{name} ({getattr(picker, name)})" for name in changed)
        raise RunFolderError(
            f"{folder.path}: {files} was overwritten since this run began, so new picks would be those of another "
            "picker than the ones that are there; to pick everything again add --overwrite, to keep both choose "
            "another -o"
        )
    if _recorded(folder) is None:
        record_files(folder, picker)


def overwritten_files(folder: RunFolder, picker: Any) -> list[str]:
    """The settings whose files hold something else than when the run in a folder began."""
    before = _recorded(folder) or {}
    return [name for name, digest in _digests(picker).items() if before.get(name, digest) != digest]


def _digests(picker: Any) -> dict[str, str]:
    """SHA-256 of each file that a setting of the picker names; what is not there is left to the picker to tell."""
    digests = {}
    for setting in settings_of(type(picker)):
        value = getattr(picker, setting.name)
        is_path = setting.annotation is Path or Path in get_args(setting.annotation)
        if value is None or not (is_path or str(value).endswith(_WEIGHTS_SUFFIXES)):
            continue
        try:
            file = find_weights(value) if setting.name == "weights" else Path(value).expanduser()
            with open(file, "rb") as stream:
                digests[setting.name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except (CryopickError, OSError):
            continue
    return digests


def _recorded(folder: RunFolder) -> Mapping[str, str] | None:
    path = folder.path / FILES
    if not os.path.lexists(path):
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
