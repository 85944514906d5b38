"""What a reproduction comes to: tables beside the paper's own figures, pictures, and what could not be had."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryopick.evaluation.machine import Machine
from cryopick.evaluation.report import csv_text, defined, markdown_table
from cryopick.io.files.atomic import write_bytes_atomic, write_text_atomic
from cryopick.pages.parts import Picture, Table
from cryopick.pages.render import render

Cell = str | float | int | None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of a paper, as measured here and as printed there.

    Parameters
    ----------
    name : of its files, such as "table-1"
    title : what it shows, and which table of the paper it is
    columns : of both
    rows : measured here; a number that is not there is NaN or None, and `notes` say why
    paper : the paper's own rows; empty where it prints none, or they cannot be had
    notes : sentences that a reader needs before he quotes a number
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    paper: tuple[tuple[Cell, ...], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [row for row in (*self.rows, *self.paper) if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"{self.name}: a row has {len(wrong[0])} cells, expected {len(self.columns)}: {wrong[0]}")


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """One figure, as a PNG."""

    name: str
    title: str
    png: bytes
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Everything that came of one paper.

    Parameters
    ----------
    data : what was measured on, in words: the sets found, or the stand-in
    missing : sentences on what is not there: sets, programs, weights, tables of other commands
    """

    paper: str
    title: str
    reference: str
    data: tuple[str, ...]
    missing: tuple[str, ...]
    tables: tuple[PaperTable, ...]
    figures: tuple[PaperFigure, ...]
    seconds: float
    machine: Machine


def write_reproduction(result: Reproduction, folder: Path) -> list[Path]:
    """Write `reproduction.md`, `.json`, `.html`, one CSV per table and one PNG per figure.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    texts = {
        "reproduction.md": as_markdown(result),
        "reproduction.json": json.dumps(as_json(result), indent=1, ensure_ascii=False) + "\n",
        "reproduction.html": _as_html(result),
        **{f"{table.name}.csv": _as_csv(table) for table in result.tables},
    }
    pictures = {f"{figure.name}.png": figure.png for figure in result.figures}
    for name, picture in pictures.items():
        write_bytes_atomic(folder / name, picture)
    for name, text in texts.items():
        write_text_atomic(folder / name, text)
    return [folder / name for name in (*texts, *pictures)]


def as_markdown(result: Reproduction) -> str:
    """Everything but the pictures, which are named."""
    parts = [f"# {result.title}", result.reference, "Measured on:", _listed(result.data)]
    if result.missing:
        parts += ["Not there:", _listed(result.missing)]
    for table in result.tables:
        parts += [f"## {table.title}", markdown_table(list(table.columns), _texts(table.rows))]
        if table.paper:
            parts += ["In the paper:", markdown_table(list(table.columns), _texts(table.paper))]
        if table.notes:
            parts.append(_listed(table.notes))
    for figure in result.figures:
        parts += [f"## {figure.title}", f"![{figure.title}]({figure.name}.png)", figure.caption]
    parts.append(f"{result.seconds:.0f} s; {result.machine}")
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(result: Reproduction) -> dict[str, Any]:
    """Numbers as they are; what is undefined is null."""
    return {
        "paper": result.paper,
        "reference": result.reference,
        "data": list(result.data),
        "missing": list(result.missing),
        "tables": {table.name: _table_object(table) for table in result.tables},
        "figures": [figure.name for figure in result.figures],
        "seconds": round(result.seconds, 1),
    }


def _table_object(table: PaperTable) -> Mapping[str, Any]:
    return {
        "title": table.title,
        "columns": list(table.columns),
        "rows": [[_defined(cell) for cell in row] for row in table.rows],
        "paper": [[_defined(cell) for cell in row] for row in table.paper],
        "notes": list(table.notes),
    }


def _defined(cell: Cell) -> Any:
    return defined(cell) if isinstance(cell, float) else cell


def cell_text(cell: Cell) -> str:
    """Numbers with three digits behind the point, as the papers print them; `-` for what is not there."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 100 else f"{cell:.1f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _texts(rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    return [[cell_text(cell) for cell in row] for row in rows]


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _as_csv(table: PaperTable) -> str:
    rows = [["here", *map(cell_text, row)] for row in table.rows]
    rows += [["paper", *map(cell_text, row)] for row in table.paper]
    return csv_text(["measured", *table.columns], rows)


def _as_html(result: Reproduction) -> str:
    def part(table: PaperTable, rows: Sequence[Sequence[Cell]], title: str) -> Table:
        return Table(title=title, columns=table.columns, rows=tuple(tuple(row) for row in _texts(rows)))

    return render(
        "reproduction.html",
        title=result.title,
        reference=result.reference,
        data=result.data,
        missing=result.missing,
        tables=[
            (
                part(table, table.rows, table.title),
                part(table, table.paper, "In the paper") if table.paper else None,
                table,
            )
            for table in result.tables
        ],
        pictures=[Picture(title=figure.title, caption=figure.caption, png=figure.png) for figure in result.figures],
        seconds=f"{result.seconds:.0f}",
        machine=result.machine,
    )
