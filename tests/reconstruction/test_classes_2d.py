"""2D classes: particles apart from noise, averages that look like projections, and the rule that selects."""

from dataclasses import replace

import numpy as np
import pytest

from cryopick.errors import InputError
from cryopick.geometry.rotations import euler_to_matrix
from cryopick.processing.projection import project
from cryopick.reconstruction.classes_2d import Classes2D, class_count, classify_2d, select_classes, two_groups
from cryopick.reconstruction.particles import with_spectrum_cut
from cryopick.reconstruction.simulated import simulated_stack, through_the_lens


def classes_of(quality: list[float], counts: list[int], offsets: list[float] | None = None) -> Classes2D:
    return Classes2D(
        averages=np.zeros((len(counts), 8, 8), dtype=np.float32),
        assignment=np.repeat(np.arange(len(counts)), counts),
        counts=np.array(counts),
        quality=np.array(quality),
        centre_offset_px=np.column_stack([offsets or [0.0] * len(counts), np.zeros(len(counts))]),
    )


def test_noise_goes_into_classes_of_its_own_which_are_left_out(imaged_ribosome) -> None:
    stack, _ = imaged_ribosome
    stack = stack.take(np.arange(200))
    is_junk = np.arange(200) % 2 == 1
    images = stack.images.copy()
    images[is_junk] = np.random.default_rng(0).normal(size=images[is_junk].shape)
    found = classify_2d(replace(stack, images=images), classes=6, seed=1, iterations=8)
    assert found.counts.sum() == 200
    np.testing.assert_array_equal(np.bincount(found.assignment, minlength=6), found.counts)
    selection = select_classes(found, diameter_px=240 / 9)
    kept = selection.is_kept[found.assignment]
    assert kept[~is_junk].mean() > 0.95
    assert kept[is_junk].mean() < 0.15
    assert "particles left out" in selection.sentence


def test_average_of_one_view_is_its_projection_through_no_lens(ribosome) -> None:
    """Images that differ by turns, shifts, optics and noise alone become the one projection they are of."""
    stack, truth = simulated_stack(ribosome, 80, dose_e_per_angstrom2=4.0, rng=np.random.default_rng(3))
    rng = np.random.default_rng(4)
    angles = np.column_stack([np.full(80, 40.0), np.full(80, 70.0), rng.uniform(0, 360, 80)])
    views = project(ribosome, euler_to_matrix(angles), shifts_px=truth.shifts_px)
    assert stack.ctf is not None
    seen = through_the_lens(views, 9.0, stack.ctf) * np.sqrt(4 * 81.0)
    images = (seen + rng.normal(size=seen.shape)).astype(np.float32)
    found = classify_2d(replace(stack, images=images), classes=1, seed=0, iterations=6)
    turns = euler_to_matrix(np.column_stack([np.full(72, 40.0), np.full(72, 70.0), np.arange(72) * 5.0]))
    candidates = with_spectrum_cut(project(ribosome, turns), 24)
    (average,) = with_spectrum_cut(found.averages, 24)
    offset = found.centre_offset_px[0]
    assert np.hypot(*offset) < 3
    inner = slice(3, 21)

    def likeness(one: np.ndarray, dx: int, dy: int) -> float:
        moved = np.roll(average, (dy, dx), axis=(0, 1))
        return float(np.corrcoef(moved[inner, inner].ravel(), one[inner, inner].ravel())[0, 1])

    best = max(likeness(one, dx, dy) for one in candidates for dx in (-1, 0, 1) for dy in (-1, 0, 1))
    assert best > 0.9


def test_two_groups_apart_by_more_than_a_factor_of_two_are_told() -> None:
    selection = select_classes(classes_of([3.2, 2.9, 0.4, 0.5, 3.1, 0.0, 0.3], [50, 40, 90, 60, 20, 0, 3]))
    np.testing.assert_array_equal(selection.is_kept, [True, True, False, False, True, False, False])
    assert selection.reasons[5] == "empty"
    assert selection.reasons[2] == "weak average: strength 0.40"
    assert selection.sentence.startswith("3 of 7 classes kept, 153 of 263 particles left out")


def test_classes_that_are_alike_are_all_kept_but_empty_ones() -> None:
    selection = select_classes(classes_of([3.2, 2.2, 1.8, 0.0], [50, 40, 60, 0]))
    np.testing.assert_array_equal(selection.is_kept, [True, True, True, False])
    assert selection.sentence.startswith("no junk classes found")
    single = select_classes(classes_of([3.2], [50]))
    assert single.is_kept.all()


def test_an_average_off_its_centre_is_marked_and_not_dropped() -> None:
    selection = select_classes(classes_of([3.2, 3.0], [50, 40], [0.0, 7.0]), diameter_px=30)
    assert selection.is_kept.all()
    assert selection.reasons == ("strength 3.20", "strength 3.00, off-centre by 7.0 px")


def test_border_of_two_groups_is_otsus_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 20), rng.normal(4, 1, 7)])

    def within(border: float) -> float:
        return sum(len(g) * g.var() for g in (values[values < border], values[values >= border]) if len(g))

    border = two_groups(values)
    assert border is not None
    tried = np.linspace(values.min() + 1e-6, values.max(), 2000)
    assert within(border) == pytest.approx(min(within(one) for one in tried))
    assert two_groups(np.array([2.0])) is None
    assert two_groups(np.array([2.0, 2.0])) is None


def test_number_of_classes() -> None:
    assert [class_count(n) for n in (100, 785, 100_000)] == [8, 13, 50]


def test_fewer_particles_than_classes_are_refused(imaged_ribosome) -> None:
    with pytest.raises(InputError, match="3 particles cannot be sorted into 8 classes"):
        classify_2d(imaged_ribosome[0].take(np.arange(3)), seed=0)
