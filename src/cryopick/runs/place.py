"""Where a run folder lies for RELION: the path that `autopick.star` gives its coordinate files.

RELION counts paths from its project folder, which is where the run was made. So the text of `-o` is kept as it was at
the first pick, wherever a later command is called from and however it spells the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cryopick.errors import CryopickError, SettingsError
from cryopick.io.inputs.sources import can_be_listed
from cryopick.io.star import read_star
from cryopick.runs.folder import AUTOPICK, PICKS, PLACE, RunFolder
from cryopick.runs.record import PICKS_TAIL, Record


def output_folder(given: str | Path) -> Path:
    """The folder that a user means by the text of `-o`: `~` is expanded, as shells do not after `--output=`.

    Raises
    ------
    SettingsError
        If it is empty, begins with a variable or a user that is not known, or can stand in no STAR file.
    """
    text = str(given)
    if not text.strip():
        raise SettingsError("the output folder is empty; give one with -o, for example -o run1")
    expanded = os.path.expanduser(text)
    first = Path(expanded).parts[0] if Path(expanded).parts else ""
    if first.startswith(("~", "$")) and not os.path.exists(first):
        raise SettingsError(
            f"output folder {text}: {first} was not replaced by the shell; write the folder out, or ./{first} for a "
            "folder of that name"
        )
    if not can_be_listed(expanded):
        raise SettingsError(
            f"output folder {expanded!r}: no STAR file can hold this path (a control character, or blanks and both "
            "kinds of quotes), and RELION finds picks by it; choose another name"
        )
    return Path(expanded)


def settle_place(folder: RunFolder, records: Sequence[Record]) -> str:
    """The path of the run folder for RELION, as it was at the first pick; kept in the folder.

    A run that lies elsewhere now keeps it where it still leads there: from the folder in which the run was made, or
    because the whole project moved. Otherwise the run was moved alone, and has its place anew: counted from the folder
    in which it was made, or where that does not hold it, as it is called now.
    """
    place = place_of(folder, records)
    folder.write(folder.path / PLACE, json.dumps({"output": place}, ensure_ascii=False) + "\n")
    return place


def place_of(folder: RunFolder, records: Sequence[Record]) -> str:
    """As `settle_place`, and nothing is written."""
    called = folder.path.as_posix()
    recorded = _recorded(folder) or _listed_before(folder, records)
    if recorded is None or _is_same_folder(Path(recorded), folder.path):
        return recorded or called
    if PurePosixPath(recorded).is_absolute():
        return called
    base = folder_of_the_first_pick(records)
    here = Path(os.path.realpath(folder.path))
    if base is not None and base.is_dir():
        if _is_same_folder(base / recorded, folder.path):
            return recorded
        real_base = Path(os.path.realpath(base))
        return here.relative_to(real_base).as_posix() if here.is_relative_to(real_base) else called
    tail = [part for part in PurePosixPath(os.path.normpath(recorded)).parts if part != ".."]
    leads_here = list(here.parts[len(here.parts) - len(tail) :]) == tail
    leads_elsewhere = bool(tail) and os.path.exists(recorded)
    return recorded if leads_here and not leads_elsewhere else called


def _recorded(folder: RunFolder) -> str | None:
    try:
        place = json.loads((folder.path / PLACE).read_text(encoding="utf-8", errors="surrogateescape"))["output"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # of version 0.1, or damaged: the list says it as well
    return place if isinstance(place, str) and place and not any(ord(letter) < 32 for letter in place) else None


def _listed_before(folder: RunFolder, records: Sequence[Record]) -> str | None:
    """What the list of an earlier call gives as the path of the run, or None."""
    tails = {f"/{PICKS}/{record.key}{PICKS_TAIL}" for record in records}
    try:
        table = read_star(folder.path / AUTOPICK)["coordinate_files"]
        first = table.text("rlnMicrographCoordinates")[0]
    except (CryopickError, KeyError, IndexError):
        return None
    tail = next((first[start:] for start in range(len(first)) if first[start:] in tails), None)
    return None if not tail else first.removesuffix(tail) or None


def folder_of_the_first_pick(records: Sequence[Record]) -> Path | None:
    """The folder from which the names of the micrographs count; None where they were given as absolute paths."""
    for record in records:
        name = PurePosixPath(record.relion_name)
        if not name.is_absolute() and ".." not in name.parts and record.source.endswith(f"/{name.as_posix()}"):
            return Path(record.source.removesuffix(name.as_posix()))
    return None


def _is_same_folder(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
