"""What the shared types refuse, so that no array is read as something that it is not."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.types import Picks


@pytest.mark.parametrize("shape", [(2, 3), (4, 1), (4,), (2, 2, 2)])
def test_centres_of_another_shape_are_not_folded_into_pairs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 2\)"):
        Picks(xy_px=np.arange(np.prod(shape), dtype=float).reshape(shape))


@pytest.mark.parametrize("empty", [[], np.empty((0, 2)), np.empty((0, 3))])
def test_no_centres_may_have_any_shape(empty: object) -> None:
    assert Picks(xy_px=empty).xy_px.shape == (0, 2)  # type: ignore[arg-type]
