"""The window classifiers: published sizes, and dense evaluation against windows cut one by one."""

from __future__ import annotations

import pytest
import torch

from cryopick.pickers.deepcryopicker.network import (
    AlexNetClassifier,
    CompactClassifier,
    build_classifier,
    fold_for_inference,
)


def trained_looking(network):
    """Batch norms with statistics of their own, as after training."""
    generator = torch.Generator().manual_seed(3)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) * 0.1)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    return network.eval()


def test_dense_pass_equals_the_window_slid_at_the_stride():
    torch.manual_seed(0)
    network = trained_looking(CompactClassifier(classes=4))
    image = torch.randn(1, 1, 60, 53)
    with torch.inference_mode():
        dense = network(image)[0]
        side, step = network.window_px, network.stride_px
        assert dense.shape == (4, (60 - side) // step + 1, (53 - side) // step + 1)
        for row in range(dense.shape[1]):
            for column in range(dense.shape[2]):
                top, left = row * step, column * step
                window = network(image[:, :, top : top + side, left : left + side])
                torch.testing.assert_close(window.flatten(), dense[:, row, column], atol=1e-5, rtol=1e-4)


def test_folding_batch_norms_changes_nothing_but_the_layers():
    torch.manual_seed(1)
    network = trained_looking(CompactClassifier(classes=5))
    image = torch.randn(1, 1, 45, 41)
    with torch.inference_mode():
        torch.testing.assert_close(fold_for_inference(network)(image), network(image), atol=1e-4, rtol=1e-3)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in fold_for_inference(network).modules())


def test_published_network_has_the_printed_layer_sizes_and_parameter_count():
    with torch.device("meta"):  # shapes without 233 MB of weights
        network = AlexNetClassifier(classes=4)
        assert sum(parameter.numel() for parameter in network.parameters()) == 58_274_500
        x, sizes = torch.zeros(1, 1, 227, 227), {}
        for name, layer in network.features.named_children():
            x = layer(x)
            sizes[name] = tuple(x.shape[1:])
        assert sizes["conv1"] == (96, 55, 55)
        assert sizes["pool1"] == (96, 27, 27)
        assert sizes["conv2"] == (256, 27, 27)
        assert sizes["pool2"] == (256, 13, 13)
        assert sizes["conv4"] == (384, 13, 13)
        assert sizes["pool3"] == (256, 6, 6)
        assert network(torch.zeros(2, 1, 227, 227)).shape == (2, 4, 1, 1)


def test_sigmoid_is_there_for_those_who_want_the_papers_text():
    with torch.device("meta"):
        network = AlexNetClassifier(classes=4, activation="sigmoid")
    assert sum(isinstance(layer, torch.nn.Sigmoid) for layer in network.modules()) == 7
    with pytest.raises(KeyError):
        AlexNetClassifier(classes=4, activation="tanh")


def test_architecture_of_a_card_builds_its_network():
    network = build_classifier({"network": "compact_classifier", "classes": 5, "widths": [8, 8, 8]})
    assert network.classify.out_channels == 5
