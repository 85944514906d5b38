"""Tables of all particles to one `Picks` per micrograph, and what every reader checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import FormatError, InputError
from cryopick.io.coordinates.names import match_micrograph_names
from cryopick.types import Picks

MAX_COORDINATE_PX = 1e7
MAX_OUTSIDE_FRACTION = 0.5
"""More picks than this outside the image mean another frame, binning or micrograph, not stray picks."""
OUTSIDE_THE_IMAGE = "are outside the"
"""What the warning of `with_image_size` says."""
NO_SCORES = (-999.0, -9999.0)
"""Written where there is no score: by RELION's manual picker, and by crYOLO in its STAR files."""


def group_picks(names: Sequence[str], xy_px: NDArray[np.float64], **columns: Any) -> dict[str, Picks]:
    """Split a combined table into one `Picks` per micrograph, in order of first appearance, rows in file order.

    Parameters
    ----------
    names : (n,) micrograph of each row
    xy_px : (n, 2)
    columns : (n,) arrays by the field of `Picks` that they fill
    """
    code_of: dict[str, int] = {}
    codes = np.array([code_of.setdefault(name, len(code_of)) for name in names], dtype=np.int64)
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(code_of) + 1))
    grouped = {}
    for code, name in enumerate(code_of):
        rows = order[bounds[code] : bounds[code + 1]]
        given: dict[str, Any] = {field: values[rows] for field, values in columns.items()}
        grouped[name] = Picks(xy_px=xy_px[rows], micrograph_name=name, **given)
    return grouped


def as_float32(values: NDArray[np.float64], *, path: Path, what: str) -> NDArray[np.float32]:
    """Scores or diameters in the type of `Picks`; a finite number too large for it raises `FormatError`."""
    is_bad = np.isfinite(values) & (np.abs(values) > np.finfo(np.float32).max)
    if is_bad.any():
        raise FormatError(
            f"{path}: {what} is {values[is_bad][0]:g}, expected a number below 3e38; fix or delete the row"
        )
    return values.astype(np.float32)


def without_sentinels(score: NDArray[np.float64], sentinels: Sequence[float] = NO_SCORES) -> NDArray[np.float64]:
    """The scores, all NaN where the whole column is one and the same of the `sentinels`.

    Some values of a column may be real scores that happen to equal one (log-odds have no bounds), a whole column not.
    """
    is_sentinel = len(score) > 0 and any(bool((score == sentinel).all()) for sentinel in sentinels)
    return np.full(len(score), np.nan) if is_sentinel else score


def as_class_id(values: NDArray[np.int64] | NDArray[np.float64], *, path: Path, what: str) -> NDArray[np.int32]:
    """Whole numbers in the type of `Picks.class_id`; anything else raises `FormatError`."""
    is_bad = (values != np.rint(values)) | (np.abs(values) > np.iinfo(np.int32).max)
    if is_bad.any():
        raise FormatError(f"{path}: {what} is {values[is_bad][0]:g}, expected a whole number; fix or delete the row")
    return values.astype(np.int32)


def require_plausible(picks: Picks, *, source: str) -> None:
    """Refuse coordinates so large that no detector has them and later arithmetic would overflow (`FormatError`)."""
    is_bad = (np.abs(picks.xy_px) > MAX_COORDINATE_PX).any(axis=1)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        x, y = picks.xy_px[row]
        raise FormatError(
            f"{source}: pick {row + 1} of {picks.micrograph_name} is at ({x:g}, {y:g}), expected pixels below "
            f"{MAX_COORDINATE_PX:g}; fix or delete the row"
        )


def require_writable(picks: Picks) -> None:
    """Refuse to write centres that no reader would take back: not finite, or beyond any detector (`InputError`)."""
    is_bad = ~(np.abs(picks.xy_px) <= MAX_COORDINATE_PX).all(axis=1)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        x, y = picks.xy_px[row]
        raise InputError(
            f"{picks.micrograph_name}: pick {row + 1} has the centre ({x:g}, {y:g}), expected finite pixels below "
            f"{MAX_COORDINATE_PX:g}; remove it"
        )


def require_name(name: str, *, forbidden: str, holder: str) -> None:
    """Refuse a micrograph's name that has one of the `forbidden` characters or is no text (`InputError`).

    Surrogates that stand for bytes of file names in other encodings are text, other halves of pairs are not.
    """
    bad = next((character for character in name if character in forbidden), None)
    if bad is None:
        try:
            name.encode("utf-8", errors="surrogateescape")
        except UnicodeEncodeError as error:
            bad = name[error.start]
    if bad is not None:
        raise InputError(f"micrograph name {name[:100]!r} has {bad!r}, which {holder} cannot hold; rename it")


def with_image_size(picks: Picks, shape_yx: tuple[int, int] | None, *, source: str) -> Picks:
    """Record the image size and doubt picks outside it, aloud: a few are kept with a warning, many are an error.

    Inside means that the centre is on the image, `-0.5 <= x < w - 0.5` and the same for y.

    Raises
    ------
    InputError
        If more than half of the picks are outside; they belong to another frame, binning or micrograph.
    """
    if shape_yx is None:
        return picks
    picks = replace(picks, shape_yx=shape_yx)
    count = int(np.count_nonzero(~is_inside(picks.xy_px, shape_yx)))
    if count == 0:
        return picks
    height, width = shape_yx
    sentence = (
        f"{source}: {count} of {len(picks)} picks of {picks.micrograph_name} {OUTSIDE_THE_IMAGE} {width} x {height} "
        "image"
    )
    if count > MAX_OUTSIDE_FRACTION * len(picks) and count > 1:
        raise InputError(
            f"{sentence} (x up to {picks.xy_px[:, 0].max():.0f}, y up to {picks.xy_px[:, 1].max():.0f}); expected "
            "pixels of this micrograph: check the binning, swapped axes, or whether it is another micrograph"
        )
    return replace(picks, warnings=(*picks.warnings, f"{sentence}; RELION stops at a box wholly outside"))


def is_inside(xy_px: NDArray[np.float64], shape_yx: tuple[int, int]) -> NDArray[np.bool_]:
    """(n,) True where the centre lies on the image."""
    height, width = shape_yx
    x, y = xy_px[:, 0], xy_px[:, 1]
    return np.asarray((x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5))


def shapes_of(names: Iterable[str], shapes_yx: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The image sizes of the micrographs meant by `names` (see `match_micrograph_names`), those that are known."""
    if not shapes_yx:
        return {}
    return {name: shapes_yx[candidate] for name, candidate in match_micrograph_names(names, shapes_yx).items()}
