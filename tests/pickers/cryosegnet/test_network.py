"""CryoSegNet's U-Net: the published size, layer by layer, and gates that do what the equations say."""

import pytest

torch = pytest.importorskip("torch")

from cryopick.pickers.cryosegnet.network import (  # noqa: E402
    AttentionGate,
    AttentionUNet,
    architecture_of,
    build_attention_unet,
    fold_batch_norm,
)

WIDTHS = (64, 128, 256, 512, 1024, 2048)
SMALL = architecture_of(in_channels=2, out_channels=2, widths=(4, 6, 8), patch_px=2, align_corners=False)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def convolution(channels_in, channels_out, side):
    return channels_in * channels_out * side**2 + channels_out


def block(channels_in, channels_out):
    norms = 2 * 2 * channels_out  # scale and shift of two batch norms
    return convolution(channels_in, channels_out, 3) + convolution(channels_out, channels_out, 3) + norms


def gate(coarse, fine):
    return convolution(coarse, fine, 1) + 2 * convolution(fine, fine, 1) + 2 * 2 * fine


def test_the_published_network_has_131_380_673_parameters_level_by_level():
    with torch.device("meta"):
        network = AttentionUNet()
    assert [count(level) for level in network.encoder] == [
        block(coarse, fine) for coarse, fine in zip((1, *WIDTHS), WIDTHS[:-1], strict=False)
    ]
    assert count(network.bottleneck) == block(1024, 2048)
    for level, fine, coarse in zip(network.decoder, WIDTHS[:-1], WIDTHS[1:], strict=True):
        assert count(level.gate) == gate(coarse, fine)
        assert count(level.block) == block(coarse + fine, fine)
    assert count(network.head) == 65
    assert count(network) == 131_380_673
    assert sum(buffer.numel() for buffer in network.buffers()) == 32_032


def test_the_published_variant_with_four_levels_has_32_788_929_parameters():
    with torch.device("meta"):
        assert count(AttentionUNet(widths=WIDTHS[:-1])) == 32_788_929


def test_the_answer_is_as_large_as_the_published_picture():
    with torch.device("meta"):
        assert AttentionUNet()(torch.zeros(1, 1, 1024, 1024)).shape == (1, 1, 1024, 1024)


def test_a_closed_gate_blocks_the_skip_connection_and_an_open_one_passes_it():
    gate = AttentionGate(6, 3).eval()
    coarse, skip = torch.randn(1, 6, 4, 4), torch.randn(1, 3, 4, 4)
    torch.nn.init.zeros_(gate.weight_conv.weight)
    torch.nn.init.constant_(gate.weight_conv.bias, -50.0)
    assert torch.all(gate(coarse, skip).abs() < 1e-12)
    torch.nn.init.constant_(gate.weight_conv.bias, 50.0)
    assert torch.allclose(gate(coarse, skip), skip)


def test_a_gate_weighs_each_channel_and_pixel_as_the_equation_says():
    gate = AttentionGate(2, 2).eval()
    with torch.no_grad():
        gate.gate_conv.weight[:] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[..., None, None]
        gate.gate_conv.bias[:] = torch.tensor([0.0, 1.0])
        gate.skip_conv.weight[:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[..., None, None]
        gate.skip_conv.bias.zero_()
        gate.weight_conv.weight[:] = torch.tensor([[2.0, 0.0], [1.0, -1.0]])[..., None, None]
        gate.weight_conv.bias.zero_()
        for norm in (gate.gate_norm, gate.skip_norm):
            norm.eps = 0.0  # with mean 0 and variance 1 it then passes its input on
    coarse = torch.tensor([0.5, -2.0]).reshape(1, 2, 1, 1)
    skip = torch.tensor([1.0, 0.25]).reshape(1, 2, 1, 1)
    # asked = relu([0.5 + 0.25, -2 + 1 + 1]) = [0.75, 0]; weights = sigmoid([1.5, 0.75])
    expected = torch.tensor([1.0 * 0.81757448, 0.25 * 0.67917869])
    assert torch.allclose(gate(coarse, skip).flatten(), expected, atol=1e-6)


def test_folding_batch_norms_changes_nothing():
    torch.manual_seed(0)
    network = build_attention_unet(SMALL)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    picture = torch.randn(1, 2, 32, 48)
    network.eval()
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert torch.allclose(folded(picture), network(picture), atol=1e-4)


def test_the_small_network_answers_a_shifted_picture_with_the_shifted_answer():
    torch.manual_seed(1)
    network = build_attention_unet(SMALL).eval()
    stride = network.total_stride_px
    assert stride == 8
    picture = torch.zeros(1, 2, 96, 96)
    picture[..., 40:56, 40:56] = torch.randn(1, 2, 16, 16)
    moved = torch.roll(picture, (stride, -stride), dims=(2, 3))
    expected = torch.roll(network(picture), (stride, -stride), dims=(2, 3))
    inner = (..., slice(32, 64), slice(32, 64))
    assert torch.allclose(network(moved)[inner], expected[inner], atol=1e-5)
