"""The heatmap network in 8-bit integers: close to the exact one, the same in tiles, and ranges that fit the data."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cryopick.heatmap.network import HeatmapUNet, fold_batch_norm  # noqa: E402
from cryopick.heatmap.network_int8 import KEPT_SHAPES, TAIL, Int8HeatmapUNet, activation_ranges, is_int8_fast  # noqa: E402

needs_units = pytest.mark.skipif(not is_int8_fast(), reason="this CPU does not multiply 8-bit integers")


@pytest.fixture(scope="module")
def folded():
    torch.manual_seed(0)
    net = HeatmapUNet(in_channels=3, widths=(16, 24, 32))
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(2, 3, 64, 64) * 3 + 1)
    return fold_batch_norm(net.eval())


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return [torch.randn(1, 3, 64, 64) * 3 + 1 for _ in range(4)]


def test_the_range_of_the_input_is_that_of_the_images_without_their_tails(folded, images):
    low, high = activation_ranges(folded, images)["unshuffle"]
    assert low == pytest.approx(min(np.quantile(image, TAIL) for image in images), rel=1e-3)
    assert high == pytest.approx(max(np.quantile(image, 1 - TAIL) for image in images), rel=1e-3)


def test_measuring_ranges_leaves_the_network_as_it_was(folded, images):
    before = folded(images[0])
    activation_ranges(folded, images)
    assert torch.equal(folded(images[0]), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in folded.modules())


@needs_units
def test_rounding_moves_outputs_by_a_few_per_cent_of_their_spread(folded, images):
    rounded = Int8HeatmapUNet(folded, activation_ranges(folded, images))
    fresh = torch.randn(1, 3, 96, 80, generator=torch.Generator().manual_seed(2)) * 3 + 1
    with torch.inference_mode():
        exact, found = folded(fresh)[0], rounded(fresh)[0]
    for plane, (a, b) in enumerate(zip(exact, found, strict=True)):
        assert float((a - b).std() / a.std()) < 0.05, f"plane {plane}"
        assert abs(float((a - b).mean() / a.std())) < 0.02, f"plane {plane}"


@needs_units
def test_the_same_image_gives_the_same_answer_again_and_in_a_batch(folded, images):
    """The sums of residual blocks are written over their inputs; nothing of one image may reach the next."""
    rounded = Int8HeatmapUNet(folded, activation_ranges(folded, images))
    with torch.inference_mode():
        first = rounded(images[0])
        rounded(images[1])
        assert torch.equal(rounded(images[0]), first)
        assert torch.equal(rounded(torch.cat(images))[0], first[0])


@needs_units
def test_answers_do_not_depend_on_the_shapes_that_were_seen_before(folded, images):
    ranges = activation_ranges(folded, images)
    used = Int8HeatmapUNet(folded, ranges)
    pictures = [torch.randn(1, 3, 16 * rows, 48) for rows in range(1, KEPT_SHAPES + 4)]
    with torch.inference_mode():
        for picture in (*pictures, *pictures):  # more than are kept
            assert torch.equal(used(picture), Int8HeatmapUNet(folded, ranges)(picture))
