"""The licences of everything that cryopick needs, read from the packages that are installed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_WITH_USERS = ("dev",)
"""Extras that only developers install."""


def licences_page() -> str:
    """A row a package: what cryopick and each extra need, directly and through others."""
    parts = [
        "# Licences",
        "",
        "cryopick is BSD-3-Clause. What it needs, with the licences that the packages declare, read where this page",
        "was made; which packages are installed depends on system and extras.",
        "",
    ]
    seen: set[str] = set()
    for title, needed in requirements().items():
        rows = sorted(_closure(needed, seen), key=lambda one: one.metadata["Name"].lower())
        seen |= {_plain(one.metadata["Name"]) for one in rows}
        parts += [f"## {title}", "", "| package | version | licence |", "|---|---|---|"]
        parts += [f"| {one.metadata['Name']} | {one.version} | {licence_of(one)} |" for one in rows]
        parts += [""]
    return "\n".join(parts)


def requirements() -> dict[str, list[str]]:
    """Names of packages by who needs them: cryopick itself, and each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name not in NOT_WITH_USERS}
    found = {"Always": project["dependencies"], **{f"Extra `{name}`": needs for name, needs in extras.items()}}
    return {title: [_name(one) for one in needs] for title, needs in found.items()}


def licence_of(package: Distribution) -> str:
    """The licence as declared: an SPDX expression, else classifiers, else the first line of the old field."""
    told = package.metadata
    expression = told.get("License-Expression")
    if expression:
        return str(expression)
    names = [one.rsplit(" :: ", 1)[1] for one in told.get_all("Classifier") or () if one.startswith("License :: ")]
    names = [name for name in names if name not in ("OSI Approved", "Other/Proprietary License")]
    if names:
        return ", ".join(names)
    first = (told.get("License") or "").strip().splitlines()
    return first[0][:60] if first else "not declared; see its files"


def _closure(names: Iterable[str], seen: set[str]) -> list[Distribution]:
    """These packages and what they need, as far as it is installed and not in `seen`."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = _plain(waiting.pop())
        if name in found or name in seen or name == "cryopick":
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        waiting += _needs(found[name])
    return list(found.values())


def _needs(package: Distribution) -> Iterator[str]:
    for need in package.requires or ():
        if "extra ==" not in need:
            yield _name(need)


def _name(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;(@]", requirement, maxsplit=1)[0]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
