"""Errors of centres, read off from how several sets of them differ, against jitter of known size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cryopick.geometry.centring import FEWEST_PAIRS, centring_errors, error_of_mean


def jittered(rng: np.random.Generator, spread: list[float], objects: int) -> tuple[NDArray, NDArray]:
    """Centres (g, 2), and (g, k, 2) of sets that are off by Gaussian jitter of these standard deviations an axis."""
    centres = rng.uniform(0, 1000, (objects, 2))
    jitter = rng.normal(0, 1, (objects, len(spread), 2)) * np.asarray(spread)[:, None]
    return centres, centres[:, None] + jitter


@pytest.mark.parametrize("spread", [[1.0, 2.0, 4.0], [3.0, 3.0, 3.0, 3.0], [0.5, 2.0, 1.0, 3.0]])
def test_jitter_of_known_size_is_told_for_each_set(spread: list[float]) -> None:
    centres, xy = jittered(np.random.default_rng(1), spread, 4000)
    true = np.median(np.hypot(*(xy - centres[:, None]).transpose(2, 0, 1)), axis=0)
    np.testing.assert_allclose(centring_errors(xy), true, rtol=0.1, atol=0.1)


def test_silent_sets_and_centres_of_other_objects_change_little() -> None:
    rng = np.random.default_rng(2)
    centres, xy = jittered(rng, [1.0, 2.0, 3.0], 4000)
    true = np.median(np.hypot(*(xy - centres[:, None]).transpose(2, 0, 1)), axis=0)
    xy[rng.random(xy.shape[:2]) < 0.4] = np.nan
    xy[rng.random(xy.shape[:2]) < 0.03] += 20.0
    np.testing.assert_allclose(centring_errors(xy), true, rtol=0.15)


def test_two_sets_share_what_they_differ_by() -> None:
    _, xy = jittered(np.random.default_rng(3), [1.0, 3.0], 4000)
    first, second = centring_errors(xy)
    assert first == pytest.approx(second, rel=1e-3)
    assert first == pytest.approx(np.sqrt((1 + 9) / 2 * 2 * np.log(2)), rel=0.05)


def test_few_objects_give_no_other_error_on_average_than_many() -> None:
    rng = np.random.default_rng(4)
    squares = [np.square(centring_errors(jittered(rng, [2.0, 2.0], FEWEST_PAIRS)[1])[0]) for _ in range(2000)]
    assert np.mean(squares) == pytest.approx(4 * 2 * np.log(2), rel=0.05)


def test_the_error_of_a_weighted_mean_is_that_of_its_jitter() -> None:
    rng = np.random.default_rng(5)
    centres, xy = jittered(rng, [1.0, 2.0, 3.0], 4000)
    weights = rng.uniform(0.2, 1.0, xy.shape[:2])
    weights /= weights.sum(axis=1, keepdims=True)
    off = np.median(np.hypot(*((xy * weights[..., None]).sum(axis=1) - centres).T))
    assert error_of_mean(centring_errors(xy), weights) == pytest.approx(off, rel=0.05)


def test_an_error_that_all_share_does_not_show() -> None:
    rng = np.random.default_rng(6)
    _, xy = jittered(rng, [1.0, 1.0, 1.0], 1000)
    shared = rng.normal(0, 10, (len(xy), 1, 2))
    np.testing.assert_allclose(centring_errors(xy + shared), centring_errors(xy))


def test_what_cannot_be_told_is_nan() -> None:
    _, xy = jittered(np.random.default_rng(7), [1.0, 1.0, 1.0], FEWEST_PAIRS)
    assert np.isnan(centring_errors(xy[:1])).all()
    assert np.isnan(centring_errors(np.zeros((0, 3, 2)))).all()
    xy[:, 2] = np.nan  # silent everywhere
    errors = centring_errors(xy)
    assert np.isfinite(errors[:2]).all()
    assert np.isnan(errors[2])
    assert error_of_mean(errors, np.array([[0.5, 0.5, 0.0]])) == pytest.approx(errors[0] / np.sqrt(2), rel=1e-3)
    assert np.isnan(error_of_mean(errors, np.array([[0.0, 0.0, 1.0]])))
