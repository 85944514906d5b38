"""Cryo-EMMAE's steps: latent maps, clusters and their hand-over, published rules for centres, evidence of particles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from cryopick.pickers.cryoemmae.centres import (
    area_threshold,
    disc_responses,
    drop_neighbours,
    find_centres,
    find_components,
    is_off_border,
    published_centres,
)
from cryopick.pickers.cryoemmae.clusters import (
    Clusters,
    evidence_of,
    fit_centres,
    hand_over,
    particle_cluster,
    refine,
    smooth_as_published,
    smooth_map,
)
from cryopick.pickers.cryoemmae.latent import Encoder, prepare_image


class PatchMeans(torch.nn.Module):
    """Stands in for the encoder: the vector of a patch is its mean."""

    image_px, patch_px, side, width = 64, 4, 16, 1

    def encode(self, images):
        return images.reshape(-1, 16, 4, 16, 4).mean(dim=(2, 4)).reshape(-1, 256, 1)


def means_encoder(mean=0.0, std=1.0):
    return Encoder(PatchMeans(), device="cpu", is_bfloat16=False, mean=mean, std=std)


# ------------------------------------------------------------------------------------------------------ latent maps


@pytest.mark.parametrize("shape_yx", [(64, 64), (200, 131), (65, 34), (3, 5), (224, 224)])
def test_the_vector_at_a_place_of_the_dense_map_is_that_of_the_patch_there(shape_yx):
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]].astype(np.float32)
    for ramp, axis in ((x, 0), (y, 1)):
        latent = means_encoder().dense(ramp)
        rows, columns = np.indices(latent.vectors.shape[:2])
        place = latent.to_image_xy(np.stack([columns, rows], axis=2).reshape(-1, 2))
        inside = ((place >= 1.5) & (place <= np.array(shape_yx[::-1]) - 2.5)).all(axis=1)  # whole patch in the image
        assert latent.flat[inside, 0] == pytest.approx(place[inside, axis], abs=1e-3)
        assert (place <= np.array(shape_yx[::-1]) - 1).all() or min(shape_yx) < 4


def test_the_dense_map_has_a_vector_every_two_pixels():
    latent = means_encoder().dense(np.zeros((100, 60), np.float32))
    assert (latent.step_px, latent.first_px) == (2.0, 1.5)
    assert latent.vectors.shape[:2] == (49, 29)  # 1.5, 3.5 … 97.5 and … 57.5


def test_crops_of_the_published_map_lie_row_by_row():
    y, x = np.mgrid[:1024, :1024].astype(np.float32)
    latent = means_encoder().tokens(y * 1024 + x)
    assert latent.vectors.shape == (256, 256, 1)
    rows, columns = np.indices((256, 256))
    assert latent.vectors[:, :, 0] == pytest.approx((4 * rows + 1.5) * 1024 + 4 * columns + 1.5)


def test_pixels_are_standardised_before_they_are_encoded():
    latent = means_encoder(mean=0.5, std=0.1).dense(np.full((64, 64), 0.7, np.float32))
    assert latent.vectors == pytest.approx(2.0, abs=1e-5)


def test_particles_of_any_stored_size_become_twenty_pixels_wide():
    rng = np.random.default_rng(0)
    for diameter_px in (11.0, 20.0, 73.0):
        pixels = rng.normal(size=(300, 331)).astype(np.float32)
        prepared = prepare_image(pixels, diameter_px=diameter_px, preprocessing="corrected")
        assert prepared.diameter_px == pytest.approx(20, rel=0.02)
        corner = prepared.to_stored_xy(np.array([[prepared.image.shape[1] - 0.5, -0.5]]))
        assert corner == pytest.approx(np.array([[330.5, -0.5]]))


@pytest.mark.parametrize("mode", ["article", "program"])
def test_published_pictures_are_1024_wide_and_a_place_on_them_is_found_again(mode):
    pixels = np.random.default_rng(0).normal(size=(512, 400)).astype(np.float32)
    y, x = np.mgrid[:512, :400]
    pixels -= 9 * (np.hypot(x - 131, y - 92) <= 12)
    prepared = prepare_image(pixels, diameter_px=40, preprocessing=mode)
    assert prepared.image.shape == (1024, 1024)
    assert prepared.diameter_px == pytest.approx(40 * 1024 / 400)
    dark = prepared.image < np.quantile(prepared.image, 0.0015)
    row, column = np.nonzero(dark)
    middle = prepared.to_stored_xy(np.array([[column.mean(), row.mean()]]))
    assert middle == pytest.approx(np.array([[131, 92]]), abs=1.5)
    assert bool(row.mean() > 512) == (mode == "program")  # whose rows are in reverse


def test_blank_and_tiny_micrographs_are_nothing_to_encode():
    assert prepare_image(np.zeros((90, 90), np.float32), diameter_px=20, preprocessing="corrected") is None
    assert prepare_image(np.ones((9, 90), np.float32), diameter_px=20, preprocessing="program") is None


# --------------------------------------------------------------------------------------------------------- clusters


def test_the_cluster_that_is_exactly_the_old_particle_becomes_the_particle():
    labels = np.zeros((40, 40), int)
    labels[10:20, 10:30] = 2
    assert hand_over(labels, labels == 2, count=3) == 2


def test_of_two_overlapping_clusters_the_purer_one_is_chosen():
    """The specification's case: overlaps 100 (of 1000 cells) and 60 (of 80)."""
    labels = np.zeros((50, 50), int)
    flat, was_particle = labels.ravel(), np.zeros(2500, bool)
    middle = [i for i in range(2500) if 5 <= i // 50 < 45 and 5 <= i % 50 < 45]
    flat[middle[:1000]], flat[middle[1000:1080]] = 1, 2
    was_particle[middle[:100]] = True
    was_particle[middle[1000:1060]] = True
    assert hand_over(labels, was_particle.reshape(50, 50), count=3) == 2


def test_of_equally_pure_clusters_the_larger_overlap_wins():
    labels = np.zeros((40, 40), int)
    labels[10:20, 10:20], labels[25:30, 10:20] = 1, 2
    assert hand_over(labels, labels > 0, count=3) == 1


def test_nothing_is_handed_on_where_no_cell_was_a_particle():
    assert hand_over(np.zeros((20, 20), int), np.zeros((20, 20), bool), count=3) is None


def test_overlap_at_the_border_counts_only_where_the_middle_has_none():
    labels = np.zeros((40, 40), int)
    labels[0, :30] = 1
    labels[20, 20] = 2
    was_particle = labels > 0
    assert hand_over(labels, was_particle, count=3) == 2
    was_particle[20, 20] = False
    assert hand_over(labels, was_particle, count=3) == 1


def test_empty_clusters_never_become_the_particle():
    labels = np.ones((30, 30), int)
    assert hand_over(labels, np.ones((30, 30), bool), count=5) == 1


def three_levels(seed=0):
    """Vectors of a map with a bright square on a dark ground and a band between."""
    rng = np.random.default_rng(seed)
    level = np.zeros((48, 48), np.float32)
    level[20:30, 20:30] = 4
    level[:, 40:] = -4
    return level, level[:, :, None] * np.ones(3, np.float32) + rng.normal(scale=0.3, size=(48, 48, 3)).astype(
        np.float32
    )


def test_refinement_follows_the_particle_through_new_clusters():
    level, vectors = three_levels()
    start = Clusters(np.array([[0, 0, 0], [3, 3, 3]], np.float32), particle=1)
    stages = refine(vectors, start, counts=(3, 4, 5))
    assert [len(stage.centres) for stage in stages] == [2, 3, 4, 5]
    evidence = evidence_of(vectors, stages[:2])
    assert evidence[level == 4].min() > 0.9
    assert evidence[level != 4].max() < 0.1


def test_where_no_cell_is_a_particle_the_likest_new_cluster_becomes_it():
    """A faint micrograph may not reach the training set's particle cluster; its own bright square is nearest to it."""
    level, vectors = three_levels()
    far = Clusters(np.array([[0, 0, 0], [99, 99, 99]], np.float32), particle=1)
    stages = refine(vectors, far, counts=(3, 4))
    assert stages[0] is far
    for stage in stages[1:]:
        assert stage.centres[stage.particle] == pytest.approx(np.full(3, 4.0), abs=0.2)
    assert evidence_of(vectors, stages[1:2])[level == 4].min() > 0.9


def test_the_likest_centre_is_the_one_that_the_particle_would_win_first():
    start = Clusters(np.array([[0.0], [10.0], [-10.0]], np.float32), particle=1)
    assert start.likest(np.array([[-3.0], [1.0], [3.0]], np.float32)) == 2
    assert replace(start, particle=2).likest(np.array([[-3.0], [1.0], [3.0]], np.float32)) == 0
    assert Clusters(np.array([[2.0]], np.float32), particle=0).likest(np.array([[0.0], [3.0]], np.float32)) == 1


def test_a_map_of_one_value_has_one_cluster():
    assert fit_centres(np.ones((500, 4), np.float32), count=4).shape == (1, 4)


def test_clusters_do_not_depend_on_the_number_of_threads():
    generator = np.random.default_rng(0)
    vectors = (generator.normal(size=(20_000, 64)) + generator.integers(0, 4, (20_000, 1))).astype(np.float32)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="openmp"):
            found.append(fit_centres(vectors, count=5))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    stages = refine(np.ones((9, 9, 2), np.float32), Clusters(np.ones((1, 2), np.float32), 0), counts=(3,))
    assert np.isfinite(evidence_of(np.ones((9, 9, 2), np.float32), stages)).all()


def test_squared_distances_are_those_of_plain_arithmetic():
    rng = np.random.default_rng(3)
    vectors, centres = rng.normal(size=(20, 7)).astype(np.float32), rng.normal(size=(3, 7)).astype(np.float32)
    expected = [[float(((v - c) ** 2).sum()) for c in centres] for v in vectors]
    assert Clusters(centres, 0).squared_distances(vectors) == pytest.approx(np.array(expected), abs=1e-4)


def test_the_particle_cluster_is_the_one_that_particles_fall_into_more_than_others_do():
    labels = np.array([0] * 80 + [1] * 10 + [2] * 10)
    is_particle = np.zeros(100, bool)
    is_particle[[*range(10), *range(80, 88)]] = True  # ten of the common cluster, eight of cluster 1
    assert particle_cluster(labels, is_particle, count=3) == (1, pytest.approx(8 / 18 - 2 / 82))
    with pytest.raises(ValueError, match="needed"):
        particle_cluster(labels, np.zeros(100, bool), count=3)


def test_smoothing_is_a_mean_over_the_neighbours_that_exist():
    vectors = np.random.default_rng(0).normal(size=(5, 6, 2)).astype(np.float32)
    smooth = smooth_map(vectors, width=3)
    for row in range(5):
        for column in range(6):
            near = vectors[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert smooth[row, column] == pytest.approx(near.mean(axis=(0, 1)), abs=1e-5)


def test_published_smoothing_takes_the_cell_and_those_before_it_and_zeroes_the_border():
    vectors = np.random.default_rng(0).normal(size=(8, 9, 2)).astype(np.float32)
    smooth = smooth_as_published(vectors, diameter_512=20.0)
    assert smooth[4, 5] == pytest.approx(vectors[3:5, 4:6].mean(axis=(0, 1)), abs=1e-6)
    assert not smooth[0].any()
    assert not smooth[-1].any()
    wide = smooth_as_published(vectors, diameter_512=32.0)
    assert wide[4, 5] == pytest.approx(vectors[2:6, 3:7].mean(axis=(0, 1)), abs=1e-6)


# --------------------------------------------------------------------------------------------------- published rules


def test_the_threshold_needs_more_than_four_percent_of_the_map():
    smooth = np.zeros(512 * 512)
    smooth[:10_485] = 1.0
    assert area_threshold(smooth.reshape(512, 512)) is None  # 0.04 x 512 x 512 is 10485.76
    smooth[10_485] = 0.5
    assert area_threshold(smooth.reshape(512, 512)) == 0.48  # steps of 1/29, two decimals, strictly above


def test_no_threshold_means_no_picks():
    assert len(published_centres(np.zeros((256, 256), bool), diameter_512=20)[0]) == 0


def test_components_are_joined_by_sides_not_by_corners_and_weighted():
    smooth = np.zeros((10, 10))
    smooth[2, 2:4] = 0.5, 1.0
    smooth[3, 4] = 1.0
    xy, area = find_components(smooth, threshold=0.1)
    assert area.tolist() == [2, 1]
    assert xy == pytest.approx(np.array([[2 + 2 / 3, 2], [4, 3]]))


def test_the_heaviest_of_neighbours_stays_and_ties_all_go():
    xy = np.array([[0.0, 0], [5, 0], [100, 0], [105, 0], [200, 0]])
    weight = np.array([9, 4, 6, 6, 1])
    assert drop_neighbours(xy, weight, radius=10).tolist() == [True, False, False, False, True]
    assert drop_neighbours(xy, weight, radius=5).all()  # exactly at the radius is no neighbour


def test_neighbours_are_decided_at_once_so_a_chain_leaves_its_heaviest():
    xy = np.array([[0.0, 0], [8, 0], [16, 0]])
    assert drop_neighbours(xy, np.array([1, 2, 3]), radius=10).tolist() == [False, False, True]


def test_centres_nearer_to_the_border_than_two_thirds_of_a_diameter_go():
    xy = np.array([[20.0, 100], [19.9, 100], [100, 492], [100, 492.1]])
    assert is_off_border(xy, diameter=30).tolist() == [True, False, True, False]


def test_published_centres_of_discs_are_their_middles():
    y, x = np.mgrid[:256, :256]
    mask = np.zeros((256, 256), bool)
    centres = [(40, 50), (90, 200), (180, 120), (200, 60), (130, 70)]
    for cy, cx in centres:
        mask |= np.hypot(x - cx, y - cy) <= 14
    xy, _ = published_centres(mask, diameter_512=56)
    expected = sorted((2 * cx + 0.5, 2 * cy + 0.5) for cy, cx in centres)
    assert xy[np.argsort(xy[:, 0])] == pytest.approx(np.array(expected), abs=0.3)


# ---------------------------------------------------------------------------------------------------------- evidence


@pytest.mark.parametrize(("inner", "outer"), [(0.0, 5.0), (3.0, 5.0), (0.0, 2.5)])
def test_solid_hollow_and_small_bodied_particles_have_a_candidate_at_their_middles(inner, outer):
    y, x = np.mgrid[:120, :120]
    centres = np.array([[30.3, 40.6], [60.8, 41.2], [90.0, 80.4]])
    evidence = np.zeros((120, 120), np.float32)
    for cx, cy in centres:
        radius = np.hypot(x - cx, y - cy)
        solid, hole = np.clip(outer + 0.5 - radius, 0, 1), np.clip(inner + 0.5 - radius, 0, 1) * (inner > 0)
        evidence += (solid - hole).astype(np.float32)
    xy = find_centres(disc_responses(evidence, diameter=10), diameter=10)
    gaps = np.hypot(*(xy[None] - centres[:, None]).transpose(2, 0, 1)).min(axis=1)
    assert (gaps < 0.2).all()


def test_touching_particles_have_a_candidate_each():
    y, x = np.mgrid[:60, :60]
    evidence = ((np.hypot(x - 20, y - 30) <= 5) | (np.hypot(x - 30, y - 30) <= 5)).astype(np.float32)
    responses = disc_responses(evidence, diameter=10)
    xy = find_centres(responses, diameter=10)
    for middle in (20, 30):
        assert np.hypot(*(xy - [middle, 30]).T).min() < 0.7
    assert responses[2, 30, 25] < responses[2, 30, 20]


def test_flat_evidence_has_no_candidate():
    responses = disc_responses(np.full((50, 60), 0.7, np.float32), diameter=10)
    assert responses == pytest.approx(0, abs=1e-5)
    assert len(find_centres(responses, diameter=10)) == 0
