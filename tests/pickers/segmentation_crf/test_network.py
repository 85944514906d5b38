"""The segmentation networks: shapes, tiles without seams, folding, torchvision's backbones."""

import pytest
import torch

from cryopick.inference.dense import DenseNetwork
from cryopick.pickers.segmentation_crf.network import ALL_HEADS, CLASSES, EMBEDDING, HEADS, build_segmentation, folded

SMALL = {"backbone": "small", "in_channels": 2, "widths": [16, 24, 32], "depths": [1, 1, 1]}
PLANES = len(CLASSES) + EMBEDDING


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    network = build_segmentation(SMALL)
    with torch.no_grad():  # batch norms that are not the identity
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("head", HEADS)
def test_folding_changes_no_answer(small, head):
    small.head = head
    x = torch.randn(1, 2, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(folded(small)(x), small(x), rtol=1e-4, atol=1e-4)


def test_all_heads_answer_one_after_the_other(small):
    x = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        small.head = ALL_HEADS
        together = small(x)
        for number, head in enumerate(HEADS):
            small.head = head
            alone = small(x)
            torch.testing.assert_close(together[:, 5 * number : 5 * number + 5], alone[:, :5])
            torch.testing.assert_close(together[:, 10:], alone[:, 5:])


@pytest.mark.parametrize("head", HEADS)
def test_tiles_leave_no_seam(small, head):
    small.head = head
    planes = torch.randn(2, 330, 700, generator=torch.Generator().manual_seed(2)).numpy()
    layout = {"channels": PLANES, "stride_px": 2, "multiple_px": small.multiple_px, "halo_px": 256}
    maps = [
        DenseNetwork.loaded(small, device="cpu", precision="float32", tile_px=tile_px, **layout)(planes)
        for tile_px in (192, 1024)
    ]
    assert maps[0].shape == (PLANES, 165, 350)
    assert abs(maps[0] - maps[1]).max() < 1e-3


@pytest.mark.parametrize("backbone", ["fcn-resnet50", "deeplabv3-resnet50"])
def test_torchvisions_networks_answer_at_stride_8_and_feed_the_crfs(backbone):
    network = build_segmentation({"backbone": backbone, "in_channels": 2, "dropout": 0.5}).eval()
    with torch.no_grad():
        maps, refined = network(torch.zeros(1, 2, 64, 128), torch.zeros(1, 1, 8, 16))
    assert maps.shape == (1, PLANES, 8, 16)
    assert refined.shape == (1, 2 * len(CLASSES), 8, 16)
    assert network.classifier[4 if backbone.startswith("deep") else 3] is not None
