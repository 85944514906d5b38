"""Data sets whose authors keep parts apart, for training, validation and test: which folders are which part.

A part is a folder called `train`, `val` (`valid`, `validation`) or `test`. It stands at the top, as in the data that
CryoTransformer's authors released (`train/`, `val/`, `annotations/instances_train.json`,
`annotations/instances_val.json`), or in each set, as in those of CryoSegNet (`10005/train/images`,
`10005/train/masks`, `10005/val/…`). Parts are never read together: what validates must not have been learnt from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cryopick.errors import InputError

Part = Literal["train", "validation", "test"]
PART_OF_WORD: Mapping[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
ANNOTATIONS = "annotations"
_ANNOTATIONS_FILE = re.compile(r"instances_(.+)\.json")


def part_of_name(name: str) -> Part | None:
    """The part that a name stands for (`train`, `val2017`), or None."""
    return PART_OF_WORD.get(re.sub(r"[-_0-9]+$", "", name.lower()))


def parts_of(path: Path) -> dict[Part, dict[str, Path]]:
    """The folders of each part, by the name of the set, which is that of `path` where the parts stand at the top.

    Empty where `path` keeps no parts apart: where fewer than two of them are there.

    Raises
    ------
    InputError
        If some sets have parts and others have none.
    """
    if not path.is_dir():
        return {}
    own = _parts_in(path)
    if len(own) > 1:
        return {part: {path.name: folder} for part, folder in own.items()}
    by_set = {child: _parts_in(child) for child in _folders(path) if part_of_name(child.name) is None}
    if not any(len(parts) > 1 for parts in by_set.values()):
        return {}
    without = [child.name for child, parts in by_set.items() if not parts]
    if without:
        kept, parts = next((child.name, parts) for child, parts in by_set.items() if len(parts) > 1)
        raise InputError(
            f"{path}: {kept} keeps {' and '.join(parts)} apart and {', '.join(without[:3])} does not; give a folder of "
            "one kind"
        )
    found: dict[Part, dict[str, Path]] = {}
    for child, parts in by_set.items():
        for part, folder in parts.items():
            found.setdefault(part, {})[child.name] = folder
    return found


def annotations_of(folder: Path) -> Path | None:
    """The COCO file of a part at the top of a data set, `annotations/instances_train.json` beside `train/`; or None.

    Raises
    ------
    InputError
        If several files may be meant.
    """
    part = part_of_name(folder.name)
    beside = folder.parent / ANNOTATIONS
    if part is None or not beside.is_dir():
        return None
    words = {match.group(1): file for file in beside.iterdir() if (match := _ANNOTATIONS_FILE.fullmatch(file.name))}
    if folder.name in words:
        return words[folder.name]
    fitting = [file for word, file in sorted(words.items()) if part_of_name(word) == part]
    if len(fitting) > 1:
        raise InputError(f"{folder}: its labels may be {' or '.join(map(str, fitting))}; keep one of them there")
    return fitting[0] if fitting else None


def _parts_in(folder: Path) -> dict[Part, Path]:
    found: dict[Part, Path] = {}
    for child in _folders(folder):
        part = part_of_name(child.name)
        if part is not None:
            if part in found:
                raise InputError(
                    f"{folder}: {found[part].name} and {child.name} are both for {part}; remove one of them"
                )
            found[part] = child
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
