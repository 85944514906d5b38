"""Tutorials, walked: every command of a page in its order, as printed, in one folder that is empty before."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WALKED = ("tutorial-pick.md", "tutorial-finetune.md", "tutorial-relion.md", "plugin.md")
"""Pages whose commands need what those before them made; `test_tutorials.py` and `test_picker_plugin.py` walk them."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Commands in a block of a page; or, where `language` is text, what those of the block before print."""

    language: str
    lines: tuple[str, ...]


def blocks_of(page: Path) -> Iterator[Block]:
    for language, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        lines = content.replace("\\\n", " ").splitlines()
        yield Block(language, tuple(line.strip() for line in lines if line.strip()))


def as_here(line: str) -> list[str]:
    """The words of a command, with this interpreter's cryopick; what waits for a person ends by itself."""
    words = shlex.split(line)
    if words[0] == "cryopick":
        words[:1] = [sys.executable, "-P", "-m", "cryopick"]
        if "view" in words:
            words += ["--no-open", "--stop-after", "1"]
    return words


def walk(
    page: Path,
    folder: Path,
    *,
    changed: Callable[[str], str | None] = lambda line: line,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 900,
) -> list[str]:
    """Run the commands of a page; `cd` holds for those behind it.

    Parameters
    ----------
    changed : gives a command as it is to be run here, None to leave it out

    Returns
    -------
    missing : lines that the page shows as printed and that no command of the block before printed, digits aside
    """
    folder.mkdir(parents=True, exist_ok=True)
    here, printed, missing = folder, "", []
    for block in blocks_of(page):
        if block.language == "text":
            missing += [line for line in block.lines if shape(line) not in printed]
            continue
        if block.language:
            continue
        printed = ""
        for line in block.lines:
            run = changed(line)
            if run is None:
                continue
            words = as_here(run)
            if words[0] == "cd":
                here = here / words[1]
                continue
            kept = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": timeout_s}
            done = subprocess.run(words, cwd=here, env=environment, check=False, **kept)
            if done.returncode != 0:
                raise AssertionError(f"{page.name}: {run}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            printed += shape(done.stdout + done.stderr)
    return missing


def shape(text: str) -> str:
    """A text without the values of its numbers, which differ a little between processors, and without blanks."""
    return re.sub(r"\s+", " ", re.sub(r"[<>]?\d[\d,.]*", "#", text)).strip()
