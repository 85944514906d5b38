"""Which micrograph a name means: programs add folders, extensions, unique prefixes and processing suffixes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from cryopick.errors import InputError

_EXTENSIONS = set(
    ".mrc .mrcs .map .tif .tiff .png .jpg .jpeg .eer .gz .bz2 .star .box .cbox .csv .json .txt .tsv .cs".split()  # noqa: SIM905  # reads better
)
_UNIQUE_PREFIX = re.compile(r"^[0-9]{15,22}_")  # cryoSPARC puts a 64-bit number before imported names
_PICK_SUFFIX = re.compile(r"_(picks?|autopick|manualpick|topazpick|cryolo|info|particles|boxes)$", re.IGNORECASE)
_PROCESSING_SUFFIX = re.compile(
    r"_(patch_aligned_doseweighted|patch_aligned|rigid_aligned|aligned_doseweighted|doseweighted|aligned_mic|DW)$"
)


def without_extension(name: str) -> str:
    """`a/May08_03.15.02.mrc.gz` -> `a/May08_03.15.02`: only known extensions go, dots in names stay."""
    path = PurePosixPath(name.replace("\\", "/"))
    while path.suffix.lower() in _EXTENSIONS and path.stem:
        path = path.with_suffix("")
    return str(path)


def micrograph_name_of_file(relative_path: str) -> str:
    """The micrograph that a coordinate file of one micrograph is for: `a/m1_picks.star` -> `a/m1`."""
    return _PICK_SUFFIX.sub("", without_extension(relative_path))


def match_micrograph_names(names: Iterable[str], candidates: Iterable[str]) -> dict[str, str]:
    """Find for each name the one candidate that means the same micrograph.

    Tried in this order: the same text; the same path without extension; without a pick suffix such as `_picks`;
    without cryoSPARC's number in front and processing suffixes such as `_patch_aligned_doseweighted`. At each step
    folders are compared from the right, and the candidate that shares most of them wins.

    Returns
    -------
    dict : name -> candidate; names without any match are left out, for the caller to report

    Raises
    ------
    InputError
        If a name fits several candidates equally well, or two names fit one candidate equally well.
    """
    wanted = list(dict.fromkeys(names))
    free = list(dict.fromkeys(candidates))
    found: dict[str, str] = {}
    for simplify in (_same, without_extension, micrograph_name_of_file, _bare):
        proposals: dict[str, list[tuple[int, str]]] = {}  # candidate -> (shared folders, name)
        by_base: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for candidate in free:
            parts = PurePosixPath(simplify(candidate)).parts or ("",)
            by_base.setdefault(parts[-1], []).append((parts, candidate))
        for name in wanted:
            if name in found:
                continue
            parts = PurePosixPath(simplify(name)).parts or ("",)
            ranked = [(_shared_tail(parts, other), candidate) for other, candidate in by_base.get(parts[-1], [])]
            if simplify is _same:
                ranked = [(shared, candidate) for shared, candidate in ranked if candidate == name]
            if not ranked:
                continue
            most = max(shared for shared, _ in ranked)
            best = [candidate for shared, candidate in ranked if shared == most]
            if len(best) > 1:
                raise InputError(
                    f"micrograph name {name!r} fits {len(best)} micrographs: {', '.join(sorted(best)[:4])}; "
                    "use names that include the folder, or match one folder at a time"
                )
            proposals.setdefault(best[0], []).append((most, name))
        for candidate, claims in proposals.items():
            most = max(shared for shared, _ in claims)
            winners = [name for shared, name in claims if shared == most]
            if len(winners) > 1:
                raise InputError(
                    f"{len(winners)} names fit the one micrograph {candidate!r}: {', '.join(sorted(winners)[:4])}; "
                    "use names that include the folder, or remove the duplicates"
                )
            found[winners[0]] = candidate
        taken = set(found.values())
        free = [candidate for candidate in free if candidate not in taken]
    return found


def _same(name: str) -> str:
    return name


def _bare(name: str) -> str:
    """Without pick suffix, number in front and processing suffixes."""
    path = PurePosixPath(micrograph_name_of_file(name))
    base = _UNIQUE_PREFIX.sub("", path.name)
    while (shorter := _PROCESSING_SUFFIX.sub("", base)) != base:
        base = shorter
    return str(path.with_name(base)) if base and base != "." else str(path)


def _shared_tail(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
