"""The dense CRF against loops over all pairs, sums done by hand, and what every direction of an image must share."""

from __future__ import annotations

import math

import numpy as np
import pytest
from exact_mean_field import mean_field_exact

from cryopick.pickers.segmentation_crf.dense_crf import DenseCrf, mean_field, published_crf

DIAMETER_PX = 10.0


def random_maps(labels, height, width, *, seed=0):
    rng = np.random.default_rng(seed)
    log_probability = np.log(rng.dirichlet(np.ones(labels), size=(height, width)).transpose(2, 0, 1) + 1e-3)
    smooth = rng.normal(size=(height, width))
    for axis in (0, 1):
        smooth = sum(np.roll(smooth, shift, axis) for shift in (-2, -1, 0, 1, 2))
    return log_probability, smooth / smooth.std()


def by_loops(log_probability, guide, crf, diameter_px):
    """Krähenbühl and Koltun's algorithm 1, pixel by pixel, with symmetric normalisation."""
    labels, height, width = log_probability.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]

    def kernel(a, b, sigma, guide_sigma):
        (ya, xa), (yb, xb) = a, b
        exponent = ((ya - yb) / (sigma[0] * diameter_px)) ** 2 + ((xa - xb) / (sigma[1] * diameter_px)) ** 2
        if guide_sigma is not None:
            exponent += ((guide[ya, xa] - guide[yb, xb]) / guide_sigma) ** 2
        return math.exp(-exponent / 2)

    kinds = [
        (crf.appearance_weight, crf.appearance_sigma, crf.guide_sigma),
        (crf.smoothness_weight, crf.smoothness_sigma, None),
    ]
    sums = [{a: sum(kernel(a, b, s, g) for b in pixels) for a in pixels} for _, s, g in kinds]

    def softmax(values):
        total = sum(math.exp(v) for v in values)
        return [math.exp(v) / total for v in values]

    belief = {p: softmax([log_probability[(k, *p)] for k in range(labels)]) for p in pixels}
    for _ in range(crf.iterations):
        new = {}
        for a in pixels:
            message = [0.0] * labels
            for (weight, sigma, guide_sigma), total in zip(kinds, sums, strict=True):
                for b in pixels:
                    if b != a:
                        k = weight * kernel(a, b, sigma, guide_sigma) / math.sqrt(total[a] * total[b])
                        message = [m + k * q for m, q in zip(message, belief[b], strict=True)]
            cost = [
                sum(
                    message[other]
                    for other in range(labels)
                    if other != label and (label, other) not in crf.compatible and (other, label) not in crf.compatible
                )
                for label in range(labels)
            ]
            new[a] = softmax([log_probability[(k, *a)] - cost[k] for k in range(labels)])
        belief = new
    return np.array([[[belief[y, x][k] for x in range(width)] for y in range(height)] for k in range(labels)])


def test_exact_mean_field_equals_loops_over_all_pairs():
    log_probability, guide = random_maps(3, 5, 4)
    crf = DenseCrf(appearance_weight=2.0, iterations=3, compatible=((1, 2),))
    expected = by_loops(log_probability, guide, crf, DIAMETER_PX)
    np.testing.assert_allclose(mean_field_exact(log_probability, guide, crf, diameter_px=DIAMETER_PX), expected)


def test_two_pixels_are_what_paper_and_pencil_give():
    log_probability = np.log(np.array([[[0.8, 0.4]], [[0.2, 0.6]]]))
    crf = DenseCrf(appearance_weight=0.0, smoothness_weight=1.0, smoothness_sigma=(0.1, 0.1), iterations=1)
    k = math.exp(-0.5)  # one pixel apart at a sigma of one pixel
    share = k / (1 + k)  # both pixels sum to 1 + k
    first = math.log(0.8) - share * 0.6, math.log(0.2) - share * 0.4  # pays for the other's belief in the other label
    expected = 1 / (1 + math.exp(first[1] - first[0]))
    found = mean_field_exact(log_probability, np.zeros((1, 2)), crf, diameter_px=DIAMETER_PX)
    assert found[0, 0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "crf",
    [
        DenseCrf(compatible=((1, 2),)),
        DenseCrf(appearance_weight=3.0, smoothness_weight=0.0, guide_sigma=0.4),
        DenseCrf(appearance_weight=2.0, appearance_sigma=(0.5, 0.2), smoothness_weight=1.0),
        published_crf(),
    ],
)
def test_the_fast_version_agrees_with_the_exact_one(crf):
    log_probability, guide = random_maps(4, 30, 26, seed=3)
    exact = mean_field_exact(log_probability, guide, crf, diameter_px=DIAMETER_PX)
    fast = mean_field(log_probability, guide, crf, diameter_px=DIAMETER_PX)
    changed = np.abs(exact - np.exp(log_probability) / np.exp(log_probability).sum(0)).mean()
    assert np.abs(fast - exact).mean() < 0.1 * changed
    assert (fast.argmax(0) == exact.argmax(0)).mean() > 0.98
    np.testing.assert_allclose(fast.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("refine", [mean_field_exact, mean_field])
def test_both_sigmas_apply_to_rows_and_columns_so_a_turned_image_gives_the_turned_map(refine):
    log_probability, guide = random_maps(2, 18, 25, seed=5)
    turned = np.ascontiguousarray(log_probability.transpose(0, 2, 1)), np.ascontiguousarray(guide.T)
    for crf in (DenseCrf(appearance_weight=3.0), published_crf(with_axis_fault=False)):
        upright = refine(log_probability, guide, crf, diameter_px=DIAMETER_PX)
        lying = refine(*turned, crf, diameter_px=DIAMETER_PX)
        np.testing.assert_allclose(lying.transpose(0, 2, 1), upright, atol=2e-5)


def test_the_published_mix_up_of_axes_gives_another_map_when_the_image_is_turned():
    log_probability, guide = random_maps(2, 18, 25, seed=5)
    crf = DenseCrf(**{**vars(published_crf()), "appearance_weight": 3.0})
    upright = mean_field_exact(log_probability, guide, crf, diameter_px=108.0)
    lying = mean_field_exact(log_probability.transpose(0, 2, 1), guide.T, crf, diameter_px=108.0)
    assert np.abs(lying.transpose(0, 2, 1) - upright).max() > 0.05


def test_without_weights_the_probabilities_stay_as_they_are():
    log_probability, guide = random_maps(3, 9, 8)
    crf = DenseCrf(appearance_weight=0.0, smoothness_weight=0.0)
    expected = np.exp(log_probability) / np.exp(log_probability).sum(0)
    np.testing.assert_allclose(mean_field(log_probability, guide, crf, diameter_px=10.0), expected, rtol=1e-5)


def test_a_weak_pixel_follows_its_neighbours_but_not_across_an_edge_of_the_guide():
    guide = np.zeros((15, 20))
    guide[:, 10:] = 5.0
    probability = np.full((15, 20), 0.1)
    probability[:, :10] = 0.9
    probability[7, 4] = 0.4  # a gap in the left half
    log_probability = np.log(np.stack([1 - probability, probability]))
    found = mean_field(log_probability, guide, DenseCrf(appearance_weight=3.0), diameter_px=DIAMETER_PX)[1]
    assert found[7, 4] > 0.5
    assert found[:, 9].min() > 0.5
    assert found[:, 10].max() < 0.5


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="positive"):
        DenseCrf(guide_sigma=0.0)
    with pytest.raises(ValueError, match="iterations"):
        DenseCrf(iterations=0)
