"""Templates to text: the one place that makes HTML and SVG."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from numpy.typing import NDArray


def render(template: str, **shown: Any) -> str:
    """A page, or a part of one, from a file of `templates/`; the same values give the same bytes."""
    return _environment().get_template(template).render(**shown)


def render_pieces(template: str, **shown: Any) -> Iterator[str]:
    """As `render`, piece by piece, for pages that are too long to be held at once."""
    return _environment().get_template(template).generate(**shown)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "px": lambda value: f"{value:.1f}"}
    environment.globals |= {"scale": _scale, "ticks": ticks, "levels": levels, "circles": circles}
    return environment


def _base64(data: bytes | Path) -> str:
    """Of bytes, or of a file; "" where the file is missing, so that a page can be made without its picture."""
    if isinstance(data, Path):
        data = data.read_bytes() if data.is_file() else b""
    return base64.b64encode(data).decode()


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The straight line that takes `low` to `start` and `high` to `end`."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """At most seven round numbers from `low` to `high`, and their texts."""
    decade = 10.0 ** math.floor(math.log10((high - low) / 6))
    step = next(decade * factor for factor in (1, 2, 5, 10) if decade * factor * 6 >= high - low)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(number * step, f"{number * step:.{digits}f}") for number in numbers]


def levels(largest: int, *, is_log: bool) -> list[tuple[int, str]]:
    """Counts to be written at the axis of a histogram, and their texts; at most six from 0 up."""
    if is_log:
        decades = range(math.floor(math.log10(largest)) + 1)
        step = 1 + len(decades) // 6
        return [(0, "0"), *((10**n, f"{10**n:,}") for n in decades[::step])]
    whole = [(round(value), f"{round(value):,}") for value, _ in ticks(0, largest) if abs(value - round(value)) < 1e-9]
    return whole[:: 1 + len(whole) // 6]


def circles(xy_px: NDArray[Any], diameter_px: NDArray[Any], *, unknown_px: float) -> str:
    """All circles as one SVG path, which browsers draw far faster than thousands of elements.

    Parameters
    ----------
    unknown_px : the diameter drawn where it is not known (NaN)
    """
    parts = []
    for (x, y), diameter in zip(xy_px.tolist(), diameter_px.tolist(), strict=True):
        r = max(1.0, (unknown_px if math.isnan(diameter) else diameter) / 2)
        parts.append(f"M{x - r:.0f} {y:.0f}a{r:.0f} {r:.0f} 0 1 0 {2 * r:.0f} 0a{r:.0f} {r:.0f} 0 1 0 {-2 * r:.0f} 0")
    return "".join(parts)
