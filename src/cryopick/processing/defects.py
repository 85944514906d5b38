"""Pixels that are no image: hot and dead ones, lines of them, and areas that nothing was written to.

A few such pixels set the scale of every filter that follows. They are looked for where no picture of a specimen looks
like them: single pixels far beyond their neighbours, lines of a few pixels' width, exactly equal values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopick.processing.median import median
from cryopick.processing.scale import fill_non_finite

HOT_LOCAL_SIGMA = 20.0
"""A pixel is an outlier this far from the median of its neighbours, in standard deviations of such differences; counts
of electrons, however few, and the edges of gold and ice stay far below it."""
HOT_GLOBAL_SIGMA = 6.0
"""And this far in standard deviations of the whole image, which smoothed images need."""
MOST_HOT_SHARE = 0.01
"""Of all pixels. More outliers than that are the picture itself."""
MOST_ALIKE_SHARE = 0.15
"""Of the pixels around a group of outliers, those that are nearer to it than to the others."""
SPOT_PX, LINE_WIDTH_PX = 12, 3
"""Connected outliers are a defect when they are no more than so many pixels, or no wider than a line."""
LINE_SIGMA = 2.0
"""Medians of whole rows and columns differ from those of their neighbours by less than this, in the "
"noise of a pixel."""
WIDEST_LINE_PX = 5
EDGE_LINES = 2
"""The outermost lines are often those of a filter's rim; they have too little around them to tell, "
"and do little harm."""
MOST_EQUAL_SHARE = 0.25
"""Of neighbouring pixels. Pictures with more equal ones are smooth or of few values, so that equal "
"stretches are normal."""
SHORTEST_RUN_PX = 32
"""A row of so many exactly equal pixels has no noise, so nothing was recorded there."""
EDGE_SHARE = 0.9
"""Share of a side that must be constant in images of whole numbers, where black may also be what is very dark."""
LEAST_EDGE_SHARE = 0.1
"""The same in other images, where equal pixels are rare."""
UNWRITTEN_SHARE = 0.05
"""Constant rows at the end of a file that are more than this share of it are called unwritten; borders are narrower."""
EMPTY_END_SHARE = 0.01
"""Of the rows of an image, those at the end of its file: equal in every pixel, they may not have been written yet."""
_BLOCK_PX = 64
_SAMPLE_STEP = 4
_LINE_SAMPLE_PX = 256
"""Pixels of a line that its median is taken of, which is then known to a tenth of their noise."""


@dataclass(frozen=True, eq=False)
class MendedPixels:
    """An image without its defects.

    Parameters
    ----------
    pixels : (h, w) float32: small defects have the values of their neighbours, areas without data are NaN; the very
        array that was given where there is nothing to mend
    warnings : what was found and done, one sentence each
    """

    pixels: NDArray[np.float32]
    warnings: tuple[str, ...] = ()


def mend_pixels(pixels: NDArray[np.float32], *, is_last_row_first: bool = False) -> MendedPixels:
    """Replace hot and dead pixels and lines by their neighbours; mark areas without data as missing (NaN).

    Parameters
    ----------
    pixels : (h, w) float32, may hold NaN and inf; not changed
    is_last_row_first : row 0 is the file's last, as in TIFF; then unwritten rows are the first ones
    """
    is_finite = None if fill_non_finite(pixels) is pixels else np.isfinite(pixels)
    if is_finite is not None and not is_finite.any():
        return MendedPixels(pixels, ("no pixel is a number; there is nothing to pick; check the file",))
    finite = pixels if is_finite is None else pixels[is_finite]
    if _is_constant(finite):
        equal = f"all pixels are equal ({finite.flat[0]:g}); there is nothing to pick: was the file written to its end?"
        return MendedPixels(pixels, (equal,))
    is_missing, warnings = _without_data(pixels, is_last_row_first=is_last_row_first)
    filled = pixels
    if is_missing is not None:
        filled = np.where(is_missing, np.float32(np.nan), pixels)
    if is_missing is not None or is_finite is not None:
        filled = fill_non_finite(filled)
    is_filled = np.zeros(pixels.shape, bool) if is_finite is None else ~is_finite
    if is_missing is not None:
        is_filled |= is_missing
    is_defect, told = _defects(filled, is_filled)
    if is_missing is None and is_defect is None and not told:
        return MendedPixels(pixels)
    warnings += told
    mended = pixels.copy()
    if is_defect is not None:
        _fill_from_neighbours(mended, is_defect & ~is_filled, filled)
    if is_missing is not None:
        mended[is_missing] = np.nan
    return MendedPixels(mended, warnings)


def ends_in_empty_rows(pixels: NDArray[np.float32], *, is_last_row_first: bool = False) -> bool:
    """Whether the last rows of the file hold one value alone, or none, as where only its space was taken so far.

    Parameters
    ----------
    pixels : (h, w), before or after `mend_pixels`
    is_last_row_first : as for `mend_pixels`
    """
    count = max(1, round(EMPTY_END_SHARE * pixels.shape[0]))
    end = pixels[:count] if is_last_row_first else pixels[-count:]
    return bool(np.isnan(end).all() or (end == end.flat[0]).all())


# ------------------------------------------------------------------------------------------------ areas without data


def _without_data(
    pixels: NDArray[np.float32], *, is_last_row_first: bool
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """(h, w) True in constant borders and in bands of constant rows or columns, and what to say; None without any."""
    height, width = pixels.shape
    if min(height, width) < 8:
        return None, ()
    is_missing = np.ones(pixels.shape, bool)
    # whole rows and columns first; then, on what they leave, borders that are deeper here than there
    whole = _outer_lines(pixels)
    rows = slice(whole["first rows"], height - whole["last rows"])
    columns = slice(whole["first columns"], width - whole["last columns"])
    inner = rows, columns
    inner_pixels, inner_mask = pixels[inner], is_missing[inner]
    inner_mask[:] = False
    depth: dict[str, tuple[int, float]] = {}
    for name, place in (("first rows", 0), ("last rows", -1), ("first columns", 0), ("last columns", -1)):
        view, mask = inner_pixels, inner_mask
        if "columns" in name:
            view, mask = view.T, mask.T
        if place == -1:
            view, mask = view[::-1], mask[::-1]
        found = _ragged_border(view)
        if found is not None:
            mask[: len(found)] |= found
        if whole[name]:
            outermost = pixels[place] if "rows" in name else pixels[:, place]
            depth[name] = whole[name] + int(found is not None and len(found) == 1), float(outermost[0])
        elif found is not None:
            depth[name] = len(found), float(view[0][found[0].argmax()])
    warnings = _border_warnings(depth, pixels.shape, is_last_row_first=is_last_row_first)
    for what, view, mask in (("rows", inner_pixels, inner_mask), ("columns", inner_pixels.T, inner_mask.T)):
        first = whole[f"first {what}"]
        bands = [band for band in _groups(_constant_rows(view)) if band[1] - band[0] > LINE_WIDTH_PX]
        for start, end in bands:
            mask[start:end] = True
        if bands:
            named = ", ".join(f"{start + first} to {end + first - 1}" for start, end in bands[:3])
            warnings += (
                f"{sum(end - start for start, end in bands)} {what} ({named}{' ...' if len(bands) > 3 else ''}) hold "
                "one value each and no image; they are treated as missing: copy the file again if it should be whole",
            )
    return (is_missing, warnings) if is_missing.any() else (None, ())


def _outer_lines(pixels: NDArray[np.float32]) -> dict[str, int]:
    """How many of the outermost rows and columns on each side hold one value each."""
    height, width = pixels.shape
    top, bottom, left, right = 0, height, 0, width
    changes = True
    while changes:  # a column is constant only between rows that are left out, and the other way round
        before = top, bottom, left, right
        while top < bottom - 1 and _is_constant(pixels[top, left:right]):
            top += 1
        while bottom - 1 > top and _is_constant(pixels[bottom - 1, left:right]):
            bottom -= 1
        while left < right - 1 and _is_constant(pixels[top:bottom, left]):
            left += 1
        while right - 1 > left and _is_constant(pixels[top:bottom, right - 1]):
            right -= 1
        changes = before != (top, bottom, left, right)
    return {"first rows": top, "last rows": height - bottom, "first columns": left, "last columns": width - right}


def _is_constant(values: NDArray[np.float32]) -> bool:
    """Whether all are equal."""
    return bool(values.flat[0] == values.flat[-1] and (values == values.flat[0]).all())


def _ragged_border(view: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """(depth, w) True where the columns begin with one value that much of the first row holds; None without any."""
    start, end = _longest_run(view[0])
    value, share = view[0, start], (end - start) / view.shape[1]
    if not np.isfinite(value):
        return None
    if share < EDGE_SHARE and (end - start < SHORTEST_RUN_PX or share < LEAST_EDGE_SHARE or _is_whole_numbers(view)):
        return None
    is_other = view[:, start:end] != value
    depth = np.where(is_other.any(axis=0), is_other.argmax(axis=0), len(view))
    border = np.zeros((int(depth.max()), view.shape[1]), bool)
    border[:, start:end] = np.arange(len(border))[:, None] < depth
    return border


def _border_warnings(
    depth: dict[str, tuple[int, float]], shape_yx: tuple[int, ...], *, is_last_row_first: bool
) -> tuple[str, ...]:
    if not depth:
        return ()
    unwritten = "first rows" if is_last_row_first else "last rows"
    warnings: tuple[str, ...] = ()
    rows, value = depth.get(unwritten, (0, 0.0))
    if rows > UNWRITTEN_SHARE * shape_yx[0] and rows > 2 * max(
        [count for side, (count, _) in depth.items() if side != unwritten and "rows" in side], default=0
    ):
        del depth[unwritten]
        first, last = (0, rows - 1) if is_last_row_first else (shape_yx[0] - rows, shape_yx[0] - 1)
        warnings = (
            f"rows {first} to {last} of {shape_yx[0]}, the end of the file, hold nothing but {value:g}; they are "
            "treated as missing. Was the file written to its end? Copy it again, then pick it again",
        )
    # columns that are constant over the rows at which nothing was written are no border of their own
    borders = [f"{count} {side} ({value:g})" for side, (count, value) in depth.items()]
    if borders:
        warnings += (
            f"a border of one value, as motion correction may leave it: up to {', '.join(borders)}; it is treated as "
            "missing",
        )
    return warnings


def _constant_rows(view: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(h,) True where all pixels of a row are equal."""
    is_likely = view[:, 0] == view[:, view.shape[1] // 2]
    result = np.zeros(len(view), bool)
    for row in np.flatnonzero(is_likely):
        result[row] = bool((view[row] == view[row, 0]).all())
    return result


def _is_whole_numbers(pixels: NDArray[np.float32]) -> bool:
    sample = pixels[::_SAMPLE_STEP, ::_SAMPLE_STEP]
    return bool((sample == np.rint(sample)).all())


def _longest_run(values: NDArray[np.float32]) -> tuple[int, int]:
    """First and one past the last index of the longest run of equal values."""
    ends = np.append(np.flatnonzero(np.diff(values) != 0), len(values) - 1) + 1
    starts = np.append(0, ends[:-1])
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])


def _groups(is_in: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and end of each run of True."""
    change = np.diff(np.concatenate(([0], is_in.astype(np.int8), [0])))
    return list(zip(np.flatnonzero(change > 0).tolist(), np.flatnonzero(change < 0).tolist(), strict=True))


# ---------------------------------------------------------------------------------------------- hot and dead pixels


def _defects(
    filled: NDArray[np.float32], is_filled: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """(h, w) True at hot and dead pixels and lines, and what to say; None without any.

    Parameters
    ----------
    is_filled : (h, w) True where `filled` holds a filling instead of data
    """
    if min(filled.shape) < 16:
        return None, ()
    noise = _noise(filled)
    is_defect: NDArray[np.bool_] | None = None
    warnings: tuple[str, ...] = ()
    for what, view, is_filling in (("row", filled, is_filled), ("column", filled.T, is_filled.T)):
        lines = [line for line in _lines(view, noise) if is_filling[slice(*line)].mean() < 0.5]
        stretches = [stretch for stretch in _equal_stretches(view) if not is_filling[stretch[0], stretch[1]]]
        if lines or stretches:
            is_defect = np.zeros(filled.shape, bool) if is_defect is None else is_defect
            mask = is_defect if what == "row" else is_defect.T
            for start, end in lines:
                mask[start:end] = True
            for row, start, end in stretches:
                mask[row, start:end] = True
            numbers = sorted({n for start, end in lines for n in range(start, end)} | {row for row, _, _ in stretches})
            named = ", ".join(str(n) for n in numbers[:5]) + (" ..." if len(numbers) > 5 else "")
            some = f"{len(numbers)} hot or dead {what}s" if len(numbers) > 1 else f"1 hot or dead {what}"
            warnings += (f"{some} ({named}): replaced by the pixels beside",)
    if is_defect is not None:
        filled = filled.copy()
        _fill_from_neighbours(filled, is_defect, filled.copy())
    hot = _outliers(filled, noise)
    if hot is not None:
        count = int(np.count_nonzero(hot))
        if count > MOST_HOT_SHARE * filled.size:
            warnings += (
                f"{count} of {filled.size} pixels lie far beyond their neighbours, too many for defects of a detector; "
                "they are left as they are: check how this image was made",
            )
        else:
            is_defect = hot if is_defect is None else is_defect | hot
            some = f"{count} hot or dead pixels" if count > 1 else "1 hot or dead pixel"
            warnings += (f"{some}, far beyond any count: replaced by the pixels around them",)
    return is_defect, warnings


def _noise(filled: NDArray[np.float32]) -> float:
    """Standard deviation of a pixel about the mean of its neighbours, robust."""
    part = filled[:: _SAMPLE_STEP**2]
    with np.errstate(over="ignore", invalid="ignore"):
        difference = (part[:, 1:] - part[:, :-1]) / np.float32(np.sqrt(2))
    return _spread(difference)


def _spread(values: NDArray[np.floating]) -> float:
    """Robust standard deviation, where most values are equal that of all but the farthest in a hundred."""
    deviation = np.abs(values - median(values))
    typical = 1.4826 * float(median(deviation))  # median absolute deviation to standard deviation
    if typical > 0:
        return typical
    within = values[deviation <= np.quantile(deviation, 0.99)]
    return float(np.std(within, dtype=np.float64))


def _lines(view: NDArray[np.float32], noise: float) -> list[tuple[int, int]]:
    """Start and end of groups of at most `WIDEST_LINE_PX` rows whose medians stand out from those around them."""
    from scipy.ndimage import median_filter

    step = max(1, view.shape[1] // _LINE_SAMPLE_PX)
    medians = median(view[:, ::step], axis=1).astype(np.float64)
    difference = medians - median_filter(medians, size=2 * WIDEST_LINE_PX + 3, mode="reflect")
    floor = 8 * _spread(difference) if np.any(difference) else 0.0
    stands_out = np.abs(difference) > max(LINE_SIGMA * noise, floor)
    stands_out[:EDGE_LINES] = stands_out[-EDGE_LINES:] = False
    return [group for group in _groups(stands_out) if group[1] - group[0] <= WIDEST_LINE_PX]


def _equal_stretches(view: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    """(row, start, end) of long stretches of exactly equal pixels within rows whose neighbours hold noise."""
    width = view.shape[1]
    if width < 2 * SHORTEST_RUN_PX:
        return []
    # a stretch of 32 holds four pairs of pixels, eight apart, that are equal
    anchors = view[:, :: SHORTEST_RUN_PX // 4].copy(order="K")  # in memory as in the image, for columns too
    is_equal = anchors[:, 1:] == anchors[:, :-1]
    several = is_equal[:, :-2] & is_equal[:, 1:-1] & is_equal[:, 2:]
    likely = np.flatnonzero(several.any(axis=1))
    if not len(likely) or np.mean(view[::_SAMPLE_STEP, 1:] == view[::_SAMPLE_STEP, :-1]) > MOST_EQUAL_SHARE:
        return []
    found: list[tuple[int, int, int]] = []
    for row in likely:
        ends = np.append(np.flatnonzero(np.diff(view[row]) != 0), width - 1) + 1
        starts = np.append(0, ends[:-1])
        is_long = ends - starts >= SHORTEST_RUN_PX
        found += [(int(row), int(a), int(b)) for a, b in zip(starts[is_long], ends[is_long], strict=True)]
    return [stretch for stretch in found if _is_thin(view, *stretch)]


def _is_thin(view: NDArray[np.float32], row: int, start: int, end: int) -> bool:
    """Whether a stretch of equal pixels is part of a group of at most `LINE_WIDTH_PX` equal rows."""
    around = view[max(0, row - LINE_WIDTH_PX) : row + LINE_WIDTH_PX + 1, start:end]
    equal = (around == around[:, :1]).all(axis=1)
    middle = min(row, LINE_WIDTH_PX)
    return any(a <= middle < b and b - a <= LINE_WIDTH_PX for a, b in _groups(equal))


def _outliers(filled: NDArray[np.float32], noise: float) -> NDArray[np.bool_] | None:
    """(h, w) True at single pixels, spots and thin lines far beyond their neighbours; None without any."""
    import cv2

    spread = _spread(filled[::_SAMPLE_STEP, ::_SAMPLE_STEP])
    limit = max(HOT_LOCAL_SIGMA * noise, HOT_GLOBAL_SIGMA * spread)
    height, width = filled.shape
    tops, lefts = range(0, height, _BLOCK_PX), range(0, width, _BLOCK_PX)
    ranges = _block_extremes(filled, np.maximum) - _block_extremes(filled, np.minimum)
    likely = np.argwhere(~(ranges <= limit))  # an overflowing range is infinite
    if len(likely) == 0:
        return None
    result: NDArray[np.bool_] | None = None
    for i, j in likely:
        top, left = tops[i], lefts[j]
        upper, lefter = max(0, top - 2), max(0, left - 2)
        part = np.ascontiguousarray(filled[upper : top + _BLOCK_PX + 2, lefter : left + _BLOCK_PX + 2])
        with np.errstate(over="ignore"):
            is_far = np.abs(part - cv2.medianBlur(part, 5)) > limit
        is_far = is_far[top - upper :, left - lefter :][:_BLOCK_PX, :_BLOCK_PX]
        if is_far.any():
            result = np.zeros(filled.shape, bool) if result is None else result
            result[top : top + _BLOCK_PX, left : left + _BLOCK_PX] = is_far
    if result is None:
        return None
    _, label, statistics, _ = cv2.connectedComponentsWithStats(result.astype(np.uint8), connectivity=8)
    thinner = np.minimum(statistics[:, cv2.CC_STAT_WIDTH], statistics[:, cv2.CC_STAT_HEIGHT])
    is_defect = (statistics[:, cv2.CC_STAT_AREA] <= SPOT_PX) | (thinner <= LINE_WIDTH_PX)
    is_defect[0] = False  # what is no outlier
    for number in np.flatnonzero(is_defect):
        is_defect[number] = _stands_alone(filled, np.asarray(label, np.int32), int(number), statistics[number])
    return np.asarray(is_defect[label]) if is_defect.any() else None


def _stands_alone(
    filled: NDArray[np.float32], label: NDArray[np.integer], number: int, statistics: NDArray[np.integer]
) -> bool:
    """Whether few pixels around a group of outliers are like it; at the rim of a bead many are."""
    left, top, width, height = (int(value) for value in statistics[:4])
    part = np.s_[max(0, top - 2) : top + height + 2, max(0, left - 2) : left + width + 2]
    is_own, is_any = label[part] == number, label[part] > 0
    around = filled[part][~is_any]
    if around.size == 0:
        return False
    middle = float(np.median(around))
    nearest = filled[part][is_own].astype(np.float64)
    nearest = nearest[np.argmin(np.abs(nearest - middle))]
    if nearest == middle:  # nothing tells the group from what is around it
        return False
    is_alike = (around.astype(np.float64) - middle) / (nearest - middle) > 0.5
    return float(is_alike.mean()) < MOST_ALIKE_SHARE


def _block_extremes(filled: NDArray[np.float32], extreme: np.ufunc) -> NDArray[np.float64]:
    """The largest (or smallest) pixel of each block."""
    height, width = filled.shape
    whole = height // _BLOCK_PX
    rows = [extreme.reduce(filled[: whole * _BLOCK_PX].reshape(whole, _BLOCK_PX, width), axis=1)]
    if height % _BLOCK_PX:
        rows.append(extreme.reduce(filled[whole * _BLOCK_PX :], axis=0)[None])
    return np.asarray(extreme.reduceat(np.concatenate(rows), np.arange(0, width, _BLOCK_PX), axis=1), np.float64)


def _fill_from_neighbours(
    mended: NDArray[np.float32], is_defect: NDArray[np.bool_], filled: NDArray[np.float32]
) -> None:
    """Give each marked pixel the median of the unmarked ones around it, of as few as there are enough."""
    left = np.argwhere(is_defect)
    if not len(left):
        return
    for reach in (2, 4, 8):
        reached = []
        for some in np.array_split(left, 1 + len(left) // 10_000):
            row, column = (_around(some[:, axis], reach, filled.shape[axis]) for axis in (0, 1))
            around = filled[row[:, :, None], column[:, None, :]].reshape(len(some), -1)
            is_good = ~is_defect[row[:, :, None], column[:, None, :]].reshape(len(some), -1)
            is_enough = is_good.sum(axis=1) >= 2 * reach
            values = np.where(is_good, around, np.nan)[is_enough]
            if len(values):
                mended[some[is_enough, 0], some[is_enough, 1]] = np.nanmedian(values, axis=1)
            reached.append(some[~is_enough])
        left = np.concatenate(reached)
        if not len(left):
            return
    mended[left[:, 0], left[:, 1]] = median(filled[::_SAMPLE_STEP, ::_SAMPLE_STEP])


def _around(places: NDArray[np.intp], reach: int, side: int) -> NDArray[np.intp]:
    """(n, 2 reach + 1) places around each, those outside moved to the border."""
    return np.asarray(np.clip(places[:, None] + np.arange(-reach, reach + 1), 0, side - 1), np.intp)
