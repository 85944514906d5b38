"""Notebooks, run cell by cell in this process: what each cell ends with, as a notebook would show it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def shown_by(notebook: Path) -> Iterator[Any]:
    """The values of the expressions with which cells end, in the current folder."""
    names: dict[str, Any] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        code = ast.parse("".join(cell["source"]))
        last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
        exec(compile(code, notebook.name, "exec"), names)
        if last is not None:
            yield eval(compile(ast.Expression(last.value), notebook.name, "eval"), names)
