"""Which micrograph a name means: programs add folders, extensions, unique prefixes and processing suffixes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from cryopick.errors import InputError
from cryopick.io.images.formats import IMAGE_FORMATS

COORDINATE_ENDINGS = {".star", ".box", ".cbox", ".csv", ".json", ".txt", ".tsv", ".cs"}
"""How files of coordinates end. `cryopick.io.coordinates.formats.add_format` adds those of a new row."""
_UNIQUE_PREFIX = re.compile(r"^[0-9]{15,22}_")  # cryoSPARC puts a 64-bit number before imported names
_PICK_SUFFIX = re.compile(
    r"_(picks?|picked|autopick|manual_?picks?|man_?picks?|topaz_?picks?|topaz|cryolo|crypick|automatch|gautomatch|info|"
    r"particles|extract|extracted|boxes|box|coords?|coordinates)$",
    re.IGNORECASE,
)
"""What pickers put between a micrograph's name and the extension of its coordinate file."""
_PROCESSING_SUFFIX = re.compile(
    r"(_(patch_aligned|rigid_aligned|aligned|ali|dose_?weighted|no_?dw|dws?|mic|micrograph|sum|sumcorr|avg|average|intg|"
    r"corrected|motioncorrected|motion_?corr?|denoised|deconv|movies?)|[._](frames|fractions))$",
    re.IGNORECASE,
)
"""What motion correction and cameras put behind the name of an exposure."""
_BY_PRODUCT = re.compile(r"_(nonunique|rejected)$", re.IGNORECASE)
"""Gautomatch writes all maxima and the bad ones beside the picks, `_automatch`."""


def without_extension(name: str) -> str:
    """`a/May08_03.15.02.mrc.gz` -> `a/May08_03.15.02`: only known extensions go, dots in names stay."""
    path = name.replace("\\", "/")
    endings = COORDINATE_ENDINGS | _image_endings(tuple(IMAGE_FORMATS))
    while True:
        stem, dot, suffix = path.rpartition(".")
        if not dot or not stem or stem.endswith("/") or f".{suffix.lower()}" not in endings:
            return path
        path = stem


@cache
def _image_endings(formats: tuple[str, ...]) -> frozenset[str]:
    """`.mrc.gz` counts as `.mrc` and `.gz`."""
    suffixes = (suffix for name in formats for suffix in IMAGE_FORMATS[name].suffixes)
    return frozenset(f".{part}" for suffix in suffixes for part in suffix.split(".")[1:])


def micrograph_name_of_file(relative_path: str) -> str:
    """The micrograph that a coordinate file of one micrograph is for: `a/m1_picks.star` -> `a/m1`."""
    name = without_extension(relative_path)
    return _PICK_SUFFIX.sub("", name) or name


def without_processing(name: str) -> str:
    """Without extension and what cameras and motion correction put behind a name: `a/m1_DW.mrc` -> `a/m1`."""
    folder, slash, bare = without_extension(name).rpartition("/")
    while (shorter := _PROCESSING_SUFFIX.sub("", bare)) != bare and shorter:
        bare = shorter
    return f"{folder}{slash}{bare}"


def by_products_of_picking(relative_paths: Iterable[str]) -> set[str]:
    """The coordinate files that only accompany the picks of a micrograph, where those are there too.

    Gautomatch's `m1_nonunique.star` and `m1_rejected.star` are no picks when `m1_automatch.star` lies beside them.
    """
    paths = list(relative_paths)
    picked = {micrograph_name_of_file(path) for path in paths if not _BY_PRODUCT.search(without_extension(path))}
    return {
        path
        for path in paths
        if (bare := _BY_PRODUCT.sub("", without_extension(path))) != without_extension(path) and bare in picked
    }


def match_micrograph_names(names: Iterable[str], candidates: Iterable[str]) -> dict[str, str]:
    """Find for each name the one candidate that means the same micrograph.

    Tried in this order: the same text; the same path without extension; without a pick suffix such as `_picks`;
    without cryoSPARC's number in front and processing suffixes such as `_patch_aligned_doseweighted`; the same in
    any case of the letters. At each step folders are compared from the right, and the candidate that shares most of
    them wins. A candidate that one step gave away is none for the next.

    Returns
    -------
    dict : name -> candidate; names without any match are left out, for the caller to report

    Raises
    ------
    InputError
        If a name fits several candidates equally well, or two names fit one candidate equally well.
    """
    wanted = list(dict.fromkeys(names))
    known = set(candidates := list(dict.fromkeys(candidates)))
    found = {name: name for name in wanted if name in known}
    for simplify in (without_extension, micrograph_name_of_file, _bare, _bare_in_any_case):
        taken = set(found.values())
        free = [candidate for candidate in candidates if candidate not in taken]
        left = [name for name in wanted if name not in found]
        if free and left:
            found.update(_match_tails({name: simplify(name) for name in left}, {c: simplify(c) for c in free}))
    return {name: found[name] for name in wanted if name in found}


def _match_tails(simple_names: Mapping[str, str], simple_candidates: Mapping[str, str]) -> dict[str, str]:
    """Name -> candidate of equal base name that shares most folders; both are given with their simplified paths."""
    by_tail: dict[str, list[str]] = {}
    for candidate, simple in simple_candidates.items():
        for tail in _tails(simple):
            by_tail.setdefault(tail, []).append(candidate)
    claims: dict[str, list[tuple[int, str]]] = {}  # candidate -> (length of the shared tail, name)
    for name, simple in simple_names.items():
        shared = next((tail for tail in _tails(simple) if tail in by_tail), None)
        if shared is None:
            continue
        best = by_tail[shared]
        if len(best) > 1:
            best = [candidate for candidate in best if simple_candidates[candidate] == simple] or best
        if len(best) > 1:
            raise InputError(
                f"micrograph name {name!r} fits {len(best)} micrographs: {', '.join(sorted(best)[:4])}; "
                "use names that include the folder, or match one folder at a time"
            )
        claims.setdefault(best[0], []).append((len(shared), name))
    found = {}
    for candidate, claimed in claims.items():
        most = max(claimed)[0]
        winners = [name for count, name in claimed if count == most]
        if len(winners) > 1:
            raise InputError(
                f"{len(winners)} names fit the one micrograph {candidate!r}: {', '.join(sorted(winners)[:4])}; "
                "use names that include the folder, or remove the duplicates"
            )
        found[winners[0]] = candidate
    return found


def _bare(name: str) -> str:
    """Without pick suffix, number in front and processing suffixes."""
    folder, slash, base = micrograph_name_of_file(name).rpartition("/")
    return without_processing(f"{folder}{slash}{_UNIQUE_PREFIX.sub('', base) or base}")


def _bare_in_any_case(name: str) -> str:
    return _bare(name).casefold()


def _tails(path: str) -> list[str]:
    """`a/b/c` -> `a/b/c`, `b/c`, `c`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]
