"""A few of many, spread over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def evenly_taken(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, the first among them, at equal steps; in order."""
    few = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in np.unique(few).tolist()]
