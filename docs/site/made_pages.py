"""Every made page of the site by its place, as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryopick.cli.main import COMMANDS
from made_commands import commands_overview, page_of_command, place_of_command, settings_of_pickers
from made_gallery import examples, gallery_overview, page_of_example, place_of_example
from made_licences import licences_page
from made_messages import messages_page
from made_python import python_page

ROOT = Path(__file__).parents[2]


def changes_page() -> str:
    """The changelog as it stands; its links count from the root."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](../")


MADE = {
    "reference/commands.md": commands_overview,
    "reference/pickers.md": settings_of_pickers,
    "reference/python.md": python_page,
    "reference/messages.md": messages_page,
    "reference/licences.md": licences_page,
    "gallery/index.md": gallery_overview,
    "reference/changes.md": changes_page,
}
"""The page that each function makes."""

UNDER = {
    "reference/commands.md": {f"cryopick {name}": place_of_command(name) for name in COMMANDS},
    "gallery/index.md": {one.title: place_of_example(one) for one in examples()},
}
"""Made pages that stand in the navigation below another: title and place."""


def pages() -> dict[str, str]:
    """Place in the site and content of each made page."""
    made = {place: make() for place, make in MADE.items()}
    commands = {place_of_command(name): page_of_command(name) for name in COMMANDS}
    return {**made, **commands, **{place_of_example(one): page_of_example(one) for one in examples()}}


def with_pages_below(nav: list[Any]) -> list[Any]:
    """The navigation of `mkdocs.yml` with the pages of `UNDER` in it."""
    full: list[Any] = []
    for entry in nav:
        if isinstance(entry, str):
            full.append(entry)
            continue
        ((title, what),) = entry.items()
        if isinstance(what, list):
            full.append({title: with_pages_below(what)})
        elif what in UNDER:
            full.append({title: [what, *({name: place} for name, place in UNDER[what].items())]})
        else:
            full.append(entry)
    return full
