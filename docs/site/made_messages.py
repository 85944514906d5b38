"""Every error message, collected from the source, so that a search for its words finds it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from cryopick import errors
from cryopick.cli.exit_codes import ending_of

SOURCE = Path(errors.__file__).parent
FEWEST_WORDS = 3
"""With fewer of its own, a message is made of others."""
OPEN = "…"
"""Stands for what a message fills in: names, numbers, values."""


@dataclass(frozen=True)
class Message:
    """One message of the source."""

    kind: str
    """The name of its class in `cryopick.errors`."""
    text: str
    where: str


def messages() -> list[Message]:
    """All messages that the package raises as an error of its own, by class and text."""
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    found: dict[tuple[str, str], Message] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if kind in known:
                text = " ".join(text_of(node.args[0]).split())
                if len(re.findall(r"\w{2,}", text)) >= FEWEST_WORDS:
                    found.setdefault((kind, text), Message(kind, text, path.relative_to(SOURCE).as_posix()))
    return sorted(found.values(), key=lambda one: (one.kind, one.text.lstrip(f"{OPEN}: ").lower()))


def text_of(node: ast.expr) -> str:
    """A text with `OPEN` for what is filled in; of what is no text, `OPEN` alone."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(one) if isinstance(one, ast.Constant) else OPEN for one in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return OPEN


def messages_page() -> str:
    """All messages by class of error, with its exit code; what to do in bold."""
    parts = [
        "# Every error message",
        "",
        f"Made from the source. {OPEN} stands for what a message fills in: a file, a number, what came. Search this",
        "page, or the whole site, for the words around it; **what to do** is set bold. Common symptoms are under",
        "[troubleshooting](../troubleshooting.md), exit codes under [commands](commands.md#exit-codes).",
    ]
    told = messages()
    for name, kind in vars(errors).items():
        ours = [one for one in told if one.kind == name]
        if ours:
            sentence = " ".join((kind.__doc__ or "").split())
            parts += ["", f"## {name}", "", f"{sentence} Exit code {ending_of(kind()).code}.", ""]
            parts += [f"- {_as_markdown(one.text)}" for one in ours]
    return "\n".join(parts) + "\n"


def _as_markdown(text: str) -> str:
    """Without what Markdown would take for markup; the part behind the last semicolon, which says what to do, bold."""
    fact, semicolon, remedy = re.sub(r"([\\*_`<>\[\]#|])", r"\\\1", text).rpartition("; ")
    return f"{fact}; **{remedy.strip()}**" if semicolon and remedy.strip(f"{OPEN} ") else f"{fact}{semicolon}{remedy}"
