"""The documentation site: built strictly, whole without a network, and made from the program as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import cryopick
from cryopick.cli.main import COMMANDS, command_of
from cryopick.pickers.catalogue import settings_rows

ROOT = Path(__file__).parents[1]

pytest.importorskip("material", reason="the site needs mkdocs-material, which `make test` installs")
pytest.importorskip("mkdocstrings")


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") != "canonical" and "href" in given:
            self.loaded.append(given["href"])
        if tag in ("img", "script", "source", "iframe", "video") and "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_link_of_the_site_leads_to_a_page_and_a_place_on_it(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links count from the root of a server
            continue
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            is_there = target.is_file() and (
                not parts.fragment
                or target not in pages
                or unquote(parts.fragment) in {*pages[target].anchors, "__top"}
            )
            if not is_there:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert len(pages) > 40
    assert broken == []


def test_the_site_loads_nothing_from_a_network(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {link for page in pages.values() for link in page.loaded if urlsplit(link).netloc}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert loaded == set()
    assert re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]*\)", styles) == []


def test_every_option_of_every_command_stands_on_its_page(site: Path) -> None:
    for name in COMMANDS:
        text = (site / "reference" / "commands" / f"{name}.html").read_text(encoding="utf-8")
        typed = flags_of_help(name)
        assert len(typed) >= 1
        assert [flag for flag in typed if f"<code>{flag}</code>" not in text] == [], name


def flags_of_help(name: str) -> list[str]:
    """The flags in the help that typer prints, which the pages are not made from."""
    from typer import Typer
    from typer.testing import CliRunner

    app = Typer(rich_markup_mode=None, add_completion=False)
    app.command(context_settings=getattr(command_of(name), "context_settings", None))(command_of(name))
    told = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    return re.findall(r"^ +(--[a-z][\w-]*)", told, flags=re.MULTILINE)


def test_every_setting_of_a_picker_and_every_public_name_has_its_place(site: Path, pages: dict[Path, Page]) -> None:
    text = (site / "reference" / "pickers.html").read_text(encoding="utf-8")
    assert [one.flag for one in settings_rows("general") if f"<code>{one.flag}</code>" not in text] == []
    anchors = pages[site / "reference" / "python.html"].anchors
    names = [name for name in cryopick.__all__ if not name.startswith("__")]
    assert [name for name in names if not any(anchor.endswith(f".{name}") for anchor in anchors)] == []


def test_the_groups_of_the_python_page_hold_every_public_name_once() -> None:
    from made_python import GROUPS

    names = [name for _, group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(name for name in cryopick.__all__ if not name.startswith("__"))


def test_a_search_finds_pages_from_the_folder_alone(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ")
    assert "reference/commands/pick.html" in index
