"""The training folder: what lies in it, which folders are none, and who may write."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryopick.errors import RunFolderError
from cryopick.io.files.folder_lock import locked_folder
from cryopick.io.weights import card_path
from cryopick.training.logs import EVENTS, LOSS_TABLE, PICTURE, VALIDATION_TABLE
from cryopick.training.state import STATE_FILE

CONFIG, COMMAND, SPLIT, BEFORE = "config.toml", "command.txt", "split.json", "before.json"
TEST_LIST = "test.txt"
"""Paths of the micrographs that were kept for a test, for `cryopick pick @trained/test.txt`."""
WEIGHTS_FILE, BEST_FILE = "weights.safetensors", "best.safetensors"
CONTENTS = (
    *(CONFIG, COMMAND, SPLIT, TEST_LIST, STATE_FILE, WEIGHTS_FILE, card_path(Path(WEIGHTS_FILE)).name, BEST_FILE),
    *(LOSS_TABLE, VALIDATION_TABLE, PICTURE, EVENTS),
)
"""What a training may write or replace; `before.json` is only ever its own."""
_SECTIONS = frozenset(("train", "finetune"))
_OTHERS = {"records": "a picking run", "simulation.json": "a simulation", "benchmark.json": "a benchmark"}
"""What lies in folders of other commands, also before or after their settings do."""


def refuse_other_folders(folder: Path, *, resume: bool) -> None:
    """Raise unless a training may write here; nothing is written.

    Raises
    ------
    RunFolderError
        If the folder is that of another command, holds foreign files of the names that a training writes, or holds a
        training that is not to be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: is a file, expected a folder for the training; choose another with -o")
    other = next((what for name, what in _OTHERS.items() if (folder / name).exists()), None)
    if other is not None:
        raise RunFolderError(f"{folder}: is the folder of {other}; choose another for the training with -o")
    found = [name for name in CONTENTS if (folder / name).exists()]
    if found and not is_training_folder(folder):
        names = f"{', '.join(found[:3])}{' …' if len(found) > 3 else ''}"
        raise RunFolderError(
            f"{folder}: has {names} but is not a training folder of cryopick, and a training would replace them; "
            "choose another with -o"
        )
    if STATE_FILE in found and not resume:
        raise RunFolderError(f"{folder}: holds a training run; pass --resume to go on with it, or use another folder")


def is_training_folder(folder: Path) -> bool:
    """True where the settings or the state of a training lie."""
    path = folder / CONFIG
    if not path.is_file():
        return (folder / STATE_FILE).is_file()
    try:
        return bool(_SECTIONS & tomllib.loads(path.read_text(encoding="utf-8")).keys())
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror}); choose another folder with -o") from error
    except (ValueError, RecursionError):
        return (folder / STATE_FILE).is_file()


@contextmanager
def training_folder(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold a folder for a training, so that no second one writes into it; raises as `refuse_other_folders`."""
    refuse_other_folders(folder, resume=resume)
    with locked_folder(folder):
        refuse_other_folders(folder, resume=resume)  # what came in between
        yield
