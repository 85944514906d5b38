"""Label targets against shapes small enough to count, and against exact silhouettes of simulated particles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryopick.geometry.rotations import euler_to_matrix
from cryopick.processing.projection import project
from cryopick.processing.targets import (
    boxes,
    centre_heatmap,
    density_instances,
    disc_instances,
    disc_mask,
    projected_instances,
)
from cryopick.types import Volume


def test_disc_of_three_pixels_is_a_plus():
    mask = disc_mask([[2, 1]], 2.0, shape_yx=(4, 5))
    assert mask.astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]


@settings(deadline=None, max_examples=50)
@given(
    # sixteenths of a pixel: nothing lies so near a rim or a midline that rounding decides
    st.lists(st.tuples(st.integers(-80, 640), st.integers(-80, 480)), max_size=6),
    st.floats(1, 15),
)
def test_discs_equal_brute_force(centres, diameter):
    xy = np.array(centres).reshape(-1, 2) / 16
    labels = disc_instances(xy, diameter, shape_yx=(25, 35)).labels
    y, x = np.mgrid[:25, :35]
    distance = np.array([np.hypot(x - cx, y - cy) for cx, cy in xy]).reshape(-1, 25, 35)
    expected = np.zeros((25, 35), int)
    if len(xy):
        is_in = distance.min(axis=0) <= diameter / 2
        expected[is_in] = distance.argmin(axis=0)[is_in] + 1
        is_tie = np.isclose(np.ptp(np.sort(distance, axis=0)[:2], axis=0) if len(xy) > 1 else 1.0, 0)
        labels = np.where(is_tie & (labels > 0), expected, labels)
    assert (labels == expected).all()


def draw(shape_yx, parts, *, noise, seed=0):
    """Dark particles (each a boolean image) on white noise."""
    image = np.random.default_rng(seed).normal(0, noise, shape_yx)
    for part in parts:
        image[part] -= 1.0
    return image.astype(np.float32)


def ellipse(shape_yx, xy, half_axes, angle_deg):
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    u, v = c * (x - xy[0]) + s * (y - xy[1]), -s * (x - xy[0]) + c * (y - xy[1])
    return (u / half_axes[0]) ** 2 + (v / half_axes[1]) ** 2 <= 1


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_elongated_particles_get_their_own_shape_not_a_disc():
    shape_yx, centres = (160, 220), np.array([[50, 60], [120, 90], [180, 40]])
    truth = [ellipse(shape_yx, xy, (20, 9), 40 * i) for i, xy in enumerate(centres)]
    instances = density_instances(draw(shape_yx, truth, noise=0.6), centres, 40.0)
    discs = disc_instances(centres, 40.0, shape_yx=shape_yx)
    assert not instances.is_fallback.any()
    for number, silhouette in enumerate(truth, start=1):
        found = overlap(instances.labels == number, silhouette)
        assert found > 0.75
        assert found > overlap(discs.labels == number, silhouette) + 0.2


def test_hollow_particle_is_filled():
    shape_yx, centre = (80, 80), np.array([[40, 40]])
    shell = ellipse(shape_yx, (40, 40), (18, 18), 0) & ~ellipse(shape_yx, (40, 40), (10, 10), 0)
    instances = density_instances(draw(shape_yx, [shell], noise=0.2), centre, 36.0)
    assert overlap(instances.mask, ellipse(shape_yx, (40, 40), (18, 18), 0)) > 0.8


def test_particle_without_contrast_falls_back_to_a_disc():
    flat = np.zeros((50, 50), np.float32)
    bright = -draw((50, 50), [ellipse((50, 50), (25, 25), (8, 8), 0)], noise=0.01)
    for image in (flat, bright):
        instances = density_instances(image, [[25, 25]], 16.0)
        assert instances.is_fallback.tolist() == [True]
        assert (instances.mask == disc_mask([[25, 25]], 16.0, shape_yx=(50, 50))).all()


def test_neighbours_do_not_share_pixels():
    shape_yx, centres = (60, 90), np.array([[35, 30], [52, 30]])
    parts = [ellipse(shape_yx, xy, (9, 9), 0) for xy in centres]
    labels = density_instances(draw(shape_yx, parts, noise=0.1), centres, 18.0).labels
    assert overlap(labels == 1, parts[0]) > 0.75
    assert overlap(labels == 2, parts[1]) > 0.75


def test_projection_is_placed_at_the_sub_pixel_centre_and_scale():
    n = 48
    z, y, x = np.mgrid[:n, :n, :n] - n // 2
    ball = Volume((x**2 + y**2 + z**2 <= 12**2).astype(np.float32), voxel_size_angstrom=2.0)  # 48 Å wide
    centres = np.array([[30.3, 20.6], [2.0, 38.0]])
    instances = projected_instances(
        ball, np.stack([np.eye(3)] * 2), centres, pixel_size_angstrom=4.0, shape_yx=(41, 60)
    )  # fmt: skip
    rows, columns = np.nonzero(instances.labels == 1)
    assert columns.mean() == pytest.approx(30.3, abs=0.1)
    assert rows.mean() == pytest.approx(20.6, abs=0.1)
    assert np.sqrt(4 * len(rows) / np.pi) == pytest.approx(12, abs=1)  # 48 Å at 4 Å per pixel
    assert (instances.labels == 2).any()  # cut by the border, not lost


def test_projection_follows_the_orientation():
    n = 48
    rod = np.zeros((n, n, n), np.float32)
    rod[n // 2 - 15 : n // 2 + 16, n // 2 - 3 : n // 2 + 4, n // 2 - 3 : n // 2 + 4] = 1  # along z
    volume = Volume(rod, voxel_size_angstrom=1.0)
    rotations = euler_to_matrix(np.array([[0.0, 0.0, 0.0], [0.0, 90.0, 0.0], [0.0, 90.0, 90.0]]))
    centres = np.array([[30.0, 30.0], [90.0, 30.0], [150.0, 30.0]])
    labels = projected_instances(volume, rotations, centres, pixel_size_angstrom=1.0, shape_yx=(60, 180)).labels
    images = project(volume, rotations)
    for number, (image, centre) in enumerate(zip(images, centres, strict=True), start=1):
        rows, columns = np.nonzero(labels == number)
        expected_rows, expected_columns = np.nonzero(image > 0.5 * image.max())
        assert np.ptp(rows) == pytest.approx(np.ptp(expected_rows), abs=2)
        assert np.ptp(columns) == pytest.approx(np.ptp(expected_columns), abs=2)
        assert columns.mean() == pytest.approx(centre[0], abs=0.5)


def test_boxes_are_cut_at_the_edges():
    found, index = boxes([[5, 5], [0, 0], [50, 5]], 4.0, shape_yx=(10, 20), min_visible=0.3)
    assert found.tolist() == [[3.5, 3.5, 7.5, 7.5], [0, 0, 2.5, 2.5]]
    assert index.tolist() == [0, 1]
    assert boxes([[0, 0]], 4.0, shape_yx=(10, 20), min_visible=0.5)[1].tolist() == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 63), st.floats(0, 39)), max_size=5), st.sampled_from([1, 2, 4]))
def test_heatmap_gives_back_every_separate_centre(centres, stride):
    xy = np.array(centres).reshape(-1, 2)
    target = centre_heatmap(xy, 10.0, shape_yx=(40, 64), stride_px=stride)
    rows, columns = np.nonzero(target.is_centre)
    read = (np.stack([columns, rows], axis=1) + target.offset_xy[:, rows, columns].T + 0.5) * stride - 0.5
    for centre in read:
        assert np.abs(xy - centre).max(axis=1).min() < 1e-4
    cells = {tuple(np.rint((centre + 0.5) / stride - 0.5)) for centre in xy}
    assert len(read) <= len(cells)
    assert (target.heat[target.is_centre] == 1).all()
    assert ((target.heat >= 0) & (target.heat <= 1)).all()


def test_labels_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        disc_mask([[np.nan, 1]], 4.0, shape_yx=(5, 5))
    with pytest.raises(ValueError, match="positive"):
        disc_mask([[1, 1]], 0.0, shape_yx=(5, 5))
