"""The quick median is NumPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cryopick.processing.median import median


@given(
    values=st.sampled_from([np.float32, np.float64]).flatmap(
        lambda kind: arrays(
            kind, array_shapes(min_dims=2, max_dims=3, max_side=7), elements={"min_value": -1e6, "max_value": 1e6}
        )
    )
)
def test_it_is_that_of_numpy(values):
    before = values.copy()
    assert median(values) == np.median(values)
    for axis in range(-1, values.ndim):
        found = median(values, axis=axis)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, np.median(values, axis=axis))
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("count", [1, 2, 255, 256])
def test_views_of_an_image_are_taken_as_they_lie(count):
    image = np.random.default_rng(count).normal(size=(count, 300)).astype(np.float32)
    for view in (image.T, image[:, ::3], image[::-1]):
        np.testing.assert_array_equal(median(view, axis=1), np.median(view, axis=1))
