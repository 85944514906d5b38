"""What mkdocs does beyond the pages in `docs/`: pages made from the program itself, and files beside `docs/`.

Made pages are written nowhere: they are made from the commands, the settings, the public names and the messages of
the source at every build, so that they cannot say what the program no longer does.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

import made_pages
from made_figures import with_tables

ROOT = Path(__file__).parents[2]
BESIDE = "repository"
"""The folder of the site for files of the repository that pages link to, such as results of benchmarks."""
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)]*)?\))")


def on_config(config: Any) -> Any:
    """Made pages of which there are many stand in the navigation below the one that lists them."""
    config.nav = made_pages.with_pages_below(config.nav)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the made pages, and of the repository the files that pages link to."""
    for place, content in made_pages.pages().items():
        files.append(File.generated(config, place, content=content))
    beside: set[str] = set()
    for file in files.documentation_pages():
        for link in _LINK.findall(_content(file)):
            path = _of_repository(file.src_uri, link[1])
            if path is not None:
                beside.add(path)
    for path in sorted(beside):
        place = f"{BESIDE}/{path}"
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path), inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Links to files of the repository beside `docs/` lead to their copies, and those of copies back."""
    here = page.file.src_uri
    parent = str(PurePosixPath(here).parent)

    def led(found: re.Match[str]) -> str:
        link = found.group(2)
        path = _of_repository(here, link)
        if here.startswith(f"{BESIDE}/") and "://" not in link:
            target = normpath(f"{parent.removeprefix(BESIDE).lstrip('/')}/{link}").lstrip("/")
            place = target.removeprefix("docs/") if target.startswith("docs/") else f"{BESIDE}/{target}"
            return f"{found.group(1)}{relpath(place, parent)}{found.group(3)}" if place in files.src_uris else "]"
        return (
            found.group(0) if path is None else f"{found.group(1)}{relpath(f'{BESIDE}/{path}', parent)}{found.group(3)}"
        )

    return _LINK.sub(led, with_tables(markdown))


def _content(file: File) -> str:
    return file.content_string


def _of_repository(here: str, link: str) -> str | None:
    """The path, from the root, of a file of the repository outside `docs/` that a link leads to."""
    if "://" in link or not link.startswith(".."):
        return None
    path = normpath(f"docs/{PurePosixPath(here).parent}/{link}")
    return None if path.startswith(("docs/", "..")) or not (ROOT / path).is_file() else path
