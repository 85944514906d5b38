"""One part of a validation, in a job of a batch system, and the files by which it is asked and answers.

`python -m` of this module takes the validation's folder, the part, and the function to call, by module and name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from cryopick.errors import CryopickError, FormatError
from cryopick.io.files.atomic import write_text_atomic

CALL, FOLDER, ENDED = "call.json", "parts", ".ended.json"


def write_call(root: Path, call: Mapping[str, Any]) -> None:
    """How `validate3d` was called, for the jobs."""
    content = {"folder": os.getcwd(), "call": call}
    write_text_atomic(root / FOLDER / CALL, json.dumps(content, default=str, indent=1, ensure_ascii=False) + "\n")


def read_call(root: Path) -> tuple[Path, dict[str, Any]]:
    """The folder in which `validate3d` was called, and how.

    Raises
    ------
    FormatError
        If the file is not what `write_call` wrote.
    """
    path = root / FOLDER / CALL
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Path(content["folder"]), dict(content["call"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise FormatError(
            f"{path}: is damaged or missing ({error}); run `cryopick validate3d --submit` again"
        ) from None


def write_ended(root: Path, part: str, failure: str) -> None:
    """The last word of a job: "" when its part is made."""
    write_text_atomic(ended_file(root, part), json.dumps({"failure": failure}) + "\n")


def ended_file(root: Path, part: str) -> Path:
    """What a job leaves when it ends by itself."""
    return root / FOLDER / f"{stem_of(part)}{ENDED}"


def stem_of(part: str) -> str:
    """Of the files and of the job of a part."""
    return part.replace("/", "-")


def main(root: Path, part: str, entry: str) -> int:
    """Make the map of a part as the call in the folder asks for it; what went wrong is left for who waits."""
    failure = ""
    try:
        folder, call = read_call(root)
        os.chdir(folder)
        module, _, name = entry.partition(":")
        getattr(import_module(module), name)(**call, part=part, on_progress=lambda line: sys.stdout.write(f"{line}\n"))
    except CryopickError as error:
        failure = str(error)
    except BaseException as error:
        write_ended(root, part, f"{type(error).__name__}: {error}")
        raise
    write_ended(root, part, failure)
    if failure:
        sys.stderr.write(f"{failure}\n")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
