"""The gallery: every script and notebook of `examples/`, with the picture that it makes."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "images" / "gallery"
"""Made by `docs/make_gallery_pictures.py`, which runs the examples."""


@dataclass(frozen=True)
class Example:
    """A script or notebook; `text` is what it says of itself, `code` the rest as Markdown."""

    path: Path
    title: str
    text: str
    code: str

    @property
    def picture(self) -> Path | None:
        found = PICTURES / f"{self.path.stem}.jpg"
        return found if found.is_file() else None


def examples() -> list[Example]:
    """All of them, by name."""
    folder = ROOT / "examples"
    scripts = [_script(path) for path in sorted(folder.glob("*.py"))]
    return [*scripts, *(_notebook(path) for path in sorted(folder.glob("*.ipynb")))]


def place_of_example(example: Example) -> str:
    return f"gallery/{example.path.stem}.md"


def gallery_overview() -> str:
    """A row an example: its picture, and what it shows."""
    parts = [
        "# Gallery",
        "",
        "Scripts that run as they are, and are run by the tests. Copy one and put your own files in.",
        "",
    ]
    for example in examples():
        parts += [f"## [{example.title}]({example.path.stem}.md)", "", example.text.split("\n\n")[0], ""]
        if example.picture is not None:
            parts += [f"![{example.title}](../images/gallery/{example.picture.name})", ""]
    return "\n".join(parts)


def page_of_example(example: Example) -> str:
    parts = [f"# {example.title}", "", example.text, ""]
    if example.picture is not None:
        parts += [f"![What it makes](../images/gallery/{example.picture.name})", ""]
    return "\n".join([*parts, f"`examples/{example.path.name}`:", "", example.code, ""])


def _script(path: Path) -> Example:
    source = path.read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(source)) or ""
    title, _, rest = told.partition("\n\n")
    text = f"{title}\n\n{rest}".replace("\n    ", "\n        ")  # a block of code stays one
    body = source.split('"""', 2)[2].lstrip("\n")
    return Example(path, path.stem.replace("_", " ").capitalize(), text, f"```python\n{body}```")


def _notebook(path: Path) -> Example:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, *others = ["".join(cell["source"]) for cell in cells]
    title, _, text = first.lstrip("# ").partition("\n\n")
    shown = [
        source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for cell, source in zip(cells[1:], others, strict=True)
    ]
    return Example(path, title, text, "\n\n".join(shown))
