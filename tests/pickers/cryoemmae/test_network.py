"""The masked autoencoder of Cryo-EMMAE against the published counts and the definition of its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryopick.pickers.cryoemmae.network import (
    MaskedAutoencoder,
    build_masked_autoencoder,
    hidden_error,
    sine_cosine_positions,
)

TINY = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def tiny() -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**TINY).eval()


def images_of(network: MaskedAutoencoder, patches: torch.Tensor) -> torch.Tensor:
    """The inverse of the network's `to_patches`."""
    side, patch = network.side, network.patch_px
    cut = patches.reshape(len(patches), side, side, patch, patch).transpose(2, 3)
    return cut.reshape(len(patches), side * patch, side * patch)


def random_order(batch: int) -> torch.Tensor:
    return torch.rand(batch, 256).argsort(dim=1)


def test_the_published_network_has_the_published_number_of_parameters():
    network = MaskedAutoencoder()
    decoder = sum(
        p.numel() for name, p in network.named_parameters() if name.startswith(("decoder", "mask_token", "predict"))
    )
    assert sum(p.numel() for p in network.parameters()) == 5_116_688
    assert decoder == 954_512


def test_patches_are_cut_row_by_row_and_put_back():
    images = torch.arange(64 * 64, dtype=torch.float32).reshape(1, 64, 64)
    patches = tiny().to_patches(images)
    assert patches.shape == (1, 256, 16)
    assert torch.equal(patches[0, 17].reshape(4, 4), images[0, 4:8, 4:8])
    assert torch.equal(images_of(tiny(), patches), images)


def test_the_loss_is_the_mean_squared_error_of_hidden_patches_alone():
    network, images, order = tiny(), torch.randn(3, 64, 64), random_order(3)
    with torch.no_grad():
        patches = network(images, order=order, visible=128)
        drawn, errors = images_of(network, patches), []
        for image, made, places in zip(images, drawn, order, strict=True):
            for place in places[128:].tolist():
                cell = np.s_[place // 16 * 4 : place // 16 * 4 + 4, place % 16 * 4 : place % 16 * 4 + 4]
                errors.append(float((image[cell] - made[cell]).square().mean()))
        found = hidden_error(patches, images, order=order, visible=128, patch_px=4)
        assert float(found) == pytest.approx(np.mean(errors), rel=1e-4)


def test_what_hidden_patches_show_changes_nothing_that_is_drawn():
    network, order = tiny(), random_order(1)
    patches = torch.randn(1, 256, 16)
    other = patches.clone()
    other[0, order[0, 128:]] = torch.randn(128, 16)
    with torch.no_grad():
        drawn = [network(images_of(network, one), order=order, visible=128) for one in (patches, other)]
    assert torch.equal(*drawn)
    other[0, order[0, 0]] += 1
    with torch.no_grad():
        assert not torch.equal(drawn[0], network(images_of(network, other), order=order, visible=128))


def test_position_codes_are_sines_and_cosines_of_row_and_column():
    codes = sine_cosine_positions(16, 5)
    assert codes.shape == (25, 16)
    row, column = 3, 2
    rates = [1.0, 0.1, 0.01, 0.001]  # 10000^(-i / 4)
    expected = [f(place * rate) for place in (row, column) for f in (np.sin, np.cos) for rate in rates]
    assert codes[row * 5 + column] == pytest.approx(expected, abs=1e-6)


def test_encoder_positions_are_scaled_and_decoder_positions_are_not():
    network = MaskedAutoencoder(**TINY)
    assert torch.allclose(network.positions, 0.08 * network.decoder_positions)


def test_a_network_is_rebuilt_from_its_architecture():
    first = tiny()
    second = build_masked_autoencoder({"network": "masked_autoencoder", **TINY})
    second.load_state_dict(first.state_dict())
    images = torch.randn(2, 64, 64)
    with torch.no_grad():
        assert torch.equal(first.encode(images), second.eval().encode(images))


def test_widths_that_heads_cannot_share_are_refused():
    with pytest.raises(ValueError, match="heads"):
        MaskedAutoencoder(width=20, heads=3)
