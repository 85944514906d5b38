"""The ranges of the activations, by which the network runs in 8-bit integers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from cryopick.heatmap.activation_ranges import TAIL, activation_ranges  # noqa: E402
from cryopick.heatmap.network import HeatmapUNet, fold_batch_norm  # noqa: E402


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
