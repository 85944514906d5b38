"""The convolutional CRF against loops, published kernel weights, and what training must be able to change."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from cryopick.pickers.segmentation_crf.conv_crf import ConvCrf, published_conv_crf, published_position_kernel


def softmax(values):
    raised = np.exp(np.asarray(values) - np.max(values))
    return raised / raised.sum()


def maps(labels=3, height=4, width=5, features=2, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, labels, height, width, generator=generator)
    return logits, torch.randn(1, features, height, width, generator=generator)


def test_the_first_iteration_is_what_loops_over_the_window_give():
    logits, features = maps()
    weights, sigma, feature_sigma = (0.7, 1.3), 1.2, 0.9
    crf = ConvCrf(
        labels=3,
        features=2,
        window=3,
        iterations=1,
        position_sigma=sigma,
        feature_sigma=feature_sigma,
        position_weight=weights[0],
        feature_weight=weights[1],
        compatible=((1, 2),),
    )
    found = crf(logits, features)[0].detach().numpy()
    unary, guide = logits[0].numpy(), features[0].numpy()
    repels = np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    near = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    position = {(dy, dx): math.exp(-(dy**2 + dx**2) / (2 * sigma**2)) for dy, dx in near}
    for y in range(4):
        for x in range(5):
            inside = [(dy, dx) for dy, dx in near if 0 <= y + dy < 4 and 0 <= x + dx < 5]
            total = sum(position[d] for d in inside)
            message = np.zeros(3)
            for dy, dx in inside:
                belief = softmax(unary[:, y + dy, x + dx])
                difference = (guide[:, y, x] - guide[:, y + dy, x + dx]) / feature_sigma
                likeness = math.exp(-0.5 * float(difference @ difference))
                message += weights[0] * position[dy, dx] / total * belief
                message += weights[1] * position[dy, dx] * likeness / sum(position.values()) * belief
            expected = np.log(softmax(unary[:, y, x])) - repels @ message
            np.testing.assert_allclose(found[:, y, x], expected, rtol=1e-4, atol=1e-5)


def test_a_turned_image_gives_the_turned_map():
    logits, features = maps(height=9, width=12)
    crf = ConvCrf(labels=3, features=2)
    turned = crf(logits.transpose(2, 3), features.transpose(2, 3)).transpose(2, 3)
    torch.testing.assert_close(turned, crf(logits, features), rtol=1e-4, atol=1e-4)


def test_training_changes_every_part_of_it_and_learns_to_mend_a_noisy_map():
    generator = torch.Generator().manual_seed(1)
    truth = torch.zeros(1, 24, 24, dtype=torch.long)
    truth[:, 6:18, 4:14] = 1
    features = truth[:, None].float() + 0.1 * torch.randn(1, 1, 24, 24, generator=generator)
    logits = (
        2.0 * functional.one_hot(truth, 2).permute(0, 3, 1, 2) - 1 + 2 * torch.randn(1, 2, 24, 24, generator=generator)
    )
    crf = ConvCrf(labels=2, features=1, window=5)
    start = {name: value.detach().clone() for name, value in crf.named_parameters()}
    before = functional.cross_entropy(crf(logits, features), truth).item()
    optimizer = torch.optim.Adam(crf.parameters(), lr=0.05)
    for _ in range(30):
        loss = functional.cross_entropy(crf(logits, features), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = functional.cross_entropy(crf(logits, features), truth).item()
    plain = functional.cross_entropy(logits, truth).item()
    assert after < 0.7 * before < plain
    for name, value in crf.named_parameters():
        assert not torch.allclose(value, start[name]), name


def test_an_even_window_is_refused():
    with pytest.raises(ValueError, match="odd"):
        ConvCrf(labels=2, features=1, window=4)


# ------------------------------------------------------------------------------------------------- as published


def test_published_position_kernel_has_the_published_weights():
    kernel = published_position_kernel()
    assert kernel[3, 3:].tolist() == pytest.approx([1, 0.411, 0.0286, 0.0003], abs=5e-4)
    assert float(kernel.sum()) == pytest.approx(3.53, abs=0.01)


def test_published_crf_without_weight_returns_the_logarithm_of_the_softmax():
    logits, _ = maps(labels=2, height=8, width=12)
    intensity = torch.randn(1, 1, 8, 12, generator=torch.Generator().manual_seed(2))
    found = published_conv_crf(logits, intensity, weight=0.0, iterations=1)
    torch.testing.assert_close(found, functional.log_softmax(logits, dim=1))


def test_published_first_message_is_made_of_log_probabilities_and_holds_the_pixel_itself():
    logits, _ = maps(labels=2, height=3, width=4)
    intensity = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    found = published_conv_crf(logits, intensity, iterations=1, window=3, blur=1)[0].numpy()
    unary = functional.log_softmax(logits, dim=1)[0].numpy()
    image, kernel = intensity[0, 0].numpy(), published_position_kernel(3).numpy()
    y, x = 1, 2
    message = np.zeros(2)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            likeness = math.exp(-0.5 * ((image[y + dy, x + dx] - image[y, x]) / 0.5) ** 2)
            message += (3 * kernel[dy + 1, dx + 1] + likeness) * unary[:, y + dy, x + dx]
    np.testing.assert_allclose(found[:, y, x], 0.8 * unary[:, y, x] + 0.2 * message, rtol=1e-4)
