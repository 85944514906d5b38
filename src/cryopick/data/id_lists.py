"""Sets by their EMPIAR numbers: the lists of the papers, and which folders of a data set they mean."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cryopick.errors import InputError, SettingsError


@dataclass(frozen=True, kw_only=True)
class IdList:
    """The EMPIAR entries that a paper trains or tests on.

    Parameters
    ----------
    source : the sentence or table that it is from
    micrographs : of all sets together as the paper or its program counts them, or None where it does not say
    """

    name: str
    ids: tuple[str, ...]
    source: str
    micrographs: int | None = None


@cache
def id_lists() -> Mapping[str, IdList]:
    """Every list by name, such as `cryosegnet-train`."""
    content = tomllib.loads(files(__package__).joinpath("id_lists.toml").read_text(encoding="utf-8"))
    return {
        name: IdList(
            name=name,
            ids=tuple(str(one) for one in entry["ids"]),
            source=entry["source"],
            micrographs=entry.get("micrographs"),
        )
        for name, entry in content.items()
    }


def expand_ids(asked: Iterable[str]) -> tuple[str, ...]:
    """Numbers and names of lists as numbers, each once.

    Parameters
    ----------
    asked : such as `10017`, `EMPIAR-10017` or `cryosegnet-train`

    Raises
    ------
    SettingsError
        If something is neither a number nor the name of a list; the names are listed.
    """
    found: list[str] = []
    for word in (one.strip() for one in asked):
        if word in id_lists():
            found += id_lists()[word].ids
            continue
        match = re.fullmatch(r"(?:EMPIAR[-:_ ]*)?([0-9]+)", word, re.IGNORECASE)
        if match is None:
            raise SettingsError(
                f"--ids: {word!r} is neither an EMPIAR number nor a list; the lists are {', '.join(id_lists())}"
            )
        found.append(match.group(1))
    return tuple(dict.fromkeys(found))


def choose_sets(names: Iterable[str], asked: Iterable[str], *, where: object) -> list[str]:
    """The names of sets that EMPIAR numbers mean: equal to one, or with it among their letters (`EMPIAR-10017`).

    Parameters
    ----------
    names : of the sets that there are
    asked : numbers and names of lists, see `expand_ids`
    where : what holds the sets, for messages

    Raises
    ------
    InputError
        If a number has no set, or several.
    """
    known, wanted = list(names), expand_ids(asked)
    chosen, missing = [], []
    for number in wanted:
        fitting = [name for name in known if re.search(rf"(?<![0-9]){number}(?![0-9])", name)]
        if len(fitting) > 1 and number not in fitting:
            raise InputError(f"{where}: {number} may be any of {', '.join(fitting)}; rename the others")
        if fitting:
            chosen.append(number if number in fitting else fitting[0])
        else:
            missing.append(number)
    if missing:
        raise InputError(
            f"{where}: has no set {', '.join(missing)}; it has {', '.join(known) or 'no sets'}; name with --ids those "
            "that are there"
        )
    return chosen
