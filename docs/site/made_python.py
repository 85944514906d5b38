"""The reference of the Python names, made from their docstrings by mkdocstrings."""

from __future__ import annotations

import cryopick
from cryopick import errors

GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Pick": (
        "The verbs of the command line: they take what it takes. Lengths are texts with their unit, `180A` or `108px`.",
        ("pick", "watch", "rethreshold", "consensus", "open_run"),
    ),
    "Look and score": ("", ("report", "evaluate", "compare", "validate3d", "benchmark", "inspect")),
    "Files": (
        "",
        (
            *("find_micrographs", "read_micrograph", "write_micrograph", "read_picks", "write_picks", "convert"),
            *("read_labels", "open_dataset"),
        ),
    ),
    "Simulate and teach": (
        "",
        ("simulate", "label", "plan_training", "train_picker", "finetune", "load_checkpoint"),
    ),
    "Pickers": ("[How to write one](../plugin.md).", ("list_pickers", "make_picker")),
    "Types": ("", ("Micrograph", "Picks", "Validation", "Length", "parse_length")),
}
"""The public names by what they are for, with a sentence; a test holds them against `cryopick.__all__`."""


def python_page() -> str:
    """Every public name with its docstring, and every error that may be caught."""
    parts = [
        "# Python",
        "",
        "`import cryopick` loads nothing heavy; each name is imported when it is first used. Every name that a program",
        "may rely on is on this page.",
    ]
    for title, (sentence, names) in GROUPS.items():
        parts += ["", f"## {title}", "", sentence, ""]
        parts += [_directive(name) for name in names]
    parts += ["", "## Errors", "", "Whatever cryopick raises on purpose is one of these, from `cryopick.errors`.", ""]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and kind.__module__ == errors.__name__:
            parents = ", ".join(one.__name__ for one in kind.__bases__)
            parts += [f"- `{name}` ({parents}): {' '.join((kind.__doc__ or '').split())}"]
    return "\n".join(parts) + "\n"


def _directive(name: str) -> str:
    thing = getattr(cryopick, name)
    return f"::: {thing.__module__}.{thing.__qualname__}\n"
