"""What a picker whose survey makes files leaves beside them for the report: pictures, tables and curves.

A picker does not know what a report looks like, and the report does not know pickers: the one writes `exhibits.json`
into the folder of its survey, the other shows whatever is in that file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryopick.errors import RunFolderError
from cryopick.pages.parts import Curves, Picture, Table

EXHIBITS_FILE = "exhibits.json"

Exhibit = Picture | Table | Curves


@dataclass(frozen=True)
class Exhibits:
    """A section of the report."""

    heading: str
    items: tuple[Exhibit, ...]


def write_exhibits(folder: Path, heading: str, items: Sequence[Exhibit]) -> None:
    """Write `exhibits.json`; the same exhibits give the same bytes."""
    from cryopick.io.files.atomic import write_bytes_atomic

    content = {"heading": heading, "items": [_plain(item) for item in items]}
    write_bytes_atomic(folder / EXHIBITS_FILE, (json.dumps(content, ensure_ascii=False) + "\n").encode())


def read_exhibits(folder: Path) -> Exhibits | None:
    """What `write_exhibits` wrote; None where there is no such file.

    Raises
    ------
    RunFolderError
        If the file is there but is not such a file.
    """
    path = folder / EXHIBITS_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Exhibits(str(content["heading"]), tuple(_item(item) for item in content["items"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{path}: expected the pictures, tables and curves of a picker's preparation ({error!r}); delete the file "
            "to have a report without them"
        ) from error


def _plain(item: Exhibit) -> dict[str, Any]:
    content = {"kind": item.kind, **asdict(item)}
    if isinstance(item, Picture):
        content["png"] = base64.b64encode(item.png).decode()
    return content


def _item(content: Mapping[str, Any]) -> Exhibit:
    title, caption = str(content["title"]), str(content["caption"])
    match content["kind"]:
        case "picture":
            return Picture(title=title, caption=caption, png=base64.b64decode(content["png"], validate=True))
        case "table":
            rows = tuple(tuple(str(cell) for cell in row) for row in content["rows"])
            return Table(title=title, caption=caption, columns=tuple(map(str, content["columns"])), rows=rows)
        case "curves":
            lines = {name: tuple((float(x), float(y)) for x, y in line) for name, line in content["lines"].items()}
            low, high = content.get("x_range", (0.0, 1.0))
            return Curves(
                title=title,
                caption=caption,
                x_label=content["x_label"],
                y_label=content["y_label"],
                lines=lines,
                x_range=(float(low), float(high)),
                mark=None if (mark := content.get("mark")) is None else float(mark),
                mark_text=str(content.get("mark_text", "")),
            )
        case other:
            raise ValueError(f"there is no exhibit of kind {other!r}")
