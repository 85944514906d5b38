"""The files that the settings of a run name besides its micrographs: weights, references, models.

A run may go on only with the same ones: picks of two weights files would stand side by side, although the settings,
which name both by one path, are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError, RunFolderError
from cryopick.io.files.version import file_version
from cryopick.io.weights import find_weights
from cryopick.pickers.protocol import NamesShippedWeights
from cryopick.pickers.survey import Survey
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


@dataclass(frozen=True, kw_only=True)
class UsedFile:
    """A file besides the micrographs that a run is picked with."""

    path: str
    """As it was given; the bare file name of weights of the package."""
    is_shipped: bool
    """Whether it is the package's own."""
    sha256: str


def used_files(picker: Any, survey: Survey | None = None) -> dict[str, UsedFile]:
    """The files that a picker picks with, given ones and shipped ones, by what they are for.

    What is not there is left to the picker to tell. The model that a picker trained on the run's micrographs is there
    as `trained_model`, with its bare name.
    """
    found: dict[str, UsedFile] = {}
    if isinstance(picker, NamesShippedWeights):
        for role, name in picker.shipped_weights().items():
            try:
                path = find_weights(name)
                found[role] = UsedFile(path=path.name, is_shipped=True, sha256=_sha256(path, file_version(path)))
            except (CryopickError, OSError):
                continue
    for role, digest in _digests(picker).items():
        found[role] = UsedFile(path=str(getattr(picker, role)), is_shipped=False, sha256=digest)
    trained = None if survey is None else survey.trained_model
    of_trained = None if trained is None else digest_of(trained)
    if trained is not None and of_trained is not None:
        found["trained_model"] = UsedFile(path=trained.name, is_shipped=False, sha256=of_trained)
    return found


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, which is read once as long as it stays as it is; None where it cannot be read."""
    try:
        return _sha256(path, file_version(path))
    except OSError:
        return None


@lru_cache(maxsize=64)
def _sha256(path: Path, version: tuple[int, ...]) -> str:  # noqa: ARG001  # another version is another call
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digests(picker: Any) -> dict[str, str]:
    """SHA-256 of each file that a setting of the picker names; what is not there is left to the picker to tell."""
    digests = {}
    for setting in settings_of(type(picker)):
        value = getattr(picker, setting.name)
        if value is None or not (setting.is_path or str(value).endswith(_WEIGHTS_SUFFIXES)):
            continue
        try:
            file = find_weights(value) if setting.name == "weights" else Path(value).expanduser()
            digests[setting.name] = _sha256(file, file_version(file))
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
