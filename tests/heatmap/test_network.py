"""The heatmap network: shapes, folding, and a receptive field that the tiles' halo covers."""

import pytest

torch = pytest.importorskip("torch")

from cryopick.heatmap.network import (  # noqa: E402
    OUTPUTS,
    SHAPE_OUTPUTS,
    STRIDE_PX,
    HeatmapUNet,
    build_heatmap_unet,
    fold_batch_norm,
    without_shape,
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = HeatmapUNet(widths=(8, 12, 16))
    net.train()
    with torch.no_grad():  # running statistics away from their start, so that folding has something to fold
        for _ in range(3):
            net(torch.randn(2, 2, 64, 64) * 3 + 1)
    return net.eval()


def test_output_has_half_the_size_and_a_plane_per_name(network):
    out = network(torch.randn(2, 2, 64, 96))
    assert out.shape == (2, len(OUTPUTS), 64 // STRIDE_PX, 96 // STRIDE_PX)


def test_folding_batch_norms_changes_nothing_but_removes_them(network):
    x = torch.randn(1, 2, 64, 80)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(network(x), folded(x), atol=1e-4)


def test_what_is_said_of_shapes_comes_last_and_can_be_left_out():
    net = HeatmapUNet(widths=(8, 12, 16), has_shape=True).eval()
    x = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        whole, picked = net(x), without_shape(net)(x)
    assert whole.shape[1] == len(OUTPUTS) + len(SHAPE_OUTPUTS)
    assert picked.shape[1] == len(OUTPUTS)
    assert torch.allclose(whole[:, : len(OUTPUTS)], picked, atol=1e-6)


def test_an_architecture_that_does_not_name_shapes_has_none():
    architecture = {"in_channels": 3, "widths": [8, 12, 16], "depths": [1, 1, 1]}
    assert not build_heatmap_unet(architecture).has_shape
    assert build_heatmap_unet({**architecture, "has_shape": True}).has_shape


def test_a_pixel_reaches_no_further_than_the_halo(network):
    from cryopick.inference.dense import DenseNetwork

    halo_px = DenseNetwork.halo_px
    x = torch.randn(1, 2, 64, 640)
    y = x.clone()
    y[..., 320] += 5.0
    changed = (network(x) != network(y)).any(dim=(0)).any(dim=0).any(dim=0).nonzero().flatten() * STRIDE_PX
    assert changed.min() >= 320 - halo_px
    assert changed.max() <= 320 + halo_px
