"""The published network: parameters and shapes as its specification lists them."""

import math

import pytest

torch = pytest.importorskip("torch")

from cryopick.pickers.cryotransformer.detr_network import (  # noqa: E402
    BACKBONE_DEPTHS,
    DetectionTransformer,
    normalized,
    sine_position,
)


def count_parameters(module, *, trained_only=False):
    """Numbers in the parameters of a module; frozen norms hold none."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return DetectionTransformer()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return DetectionTransformer(backbone="resnet18", queries=7, width=32, heads=4, layers=2, feed_width=48)


def test_parameter_counts_are_those_of_the_specification(published):
    assert count_parameters(published.transformer.encoder) == 7_890_432
    assert count_parameters(published.transformer.decoder) == 9_473_024
    heads = published.class_embed, published.bbox_embed
    others = published.query_embed, published.input_proj
    assert sum(count_parameters(part) for part in (*heads, *others)) == 811_270
    assert count_parameters(published.backbone) == 57_992_384
    assert count_parameters(published.backbone, trained_only=True) == 57_769_984
    assert count_parameters(published, trained_only=True) == 75_944_710


def test_shapes_are_those_of_the_specification(published):
    image = normalized(torch.rand(1, 100, 130))
    with torch.inference_mode():
        features = published.backbone(image)
        answers = published.eval()(image)
    assert features.shape == (1, 2048, math.ceil(100 / 32), math.ceil(130 / 32))
    assert len(answers) == 6
    for logits, boxes in answers:
        assert logits.shape == (1, 600, 2)
        assert boxes.shape == (1, 600, 4)
        assert ((boxes >= 0) & (boxes <= 1)).all()


def test_tokens_on_padding_are_looked_at_by_no_query(small):
    """What the features are there makes no difference."""
    small.eval()
    images, mask = normalized(torch.rand(2, 96, 128)), torch.ones(2, 96, 128)
    mask[0, 64:], mask[0, :, 96:] = 0, 0

    def answers(value):
        def blank(_module, _inputs, features):
            features = features.clone()
            features[0, :, 2:], features[0, :, :, 3:] = value, value
            return features

        hook = small.backbone.register_forward_hook(blank)
        try:
            with torch.inference_mode():
                return small(images, mask)[-1]
        finally:
            hook.remove()

    for first, second in zip(answers(0.0), answers(7.0), strict=True):
        torch.testing.assert_close(first, second)


def test_an_earlier_layer_answers_as_if_it_were_the_last(small):
    """Each output is normalised on its own; the next layer gets it as it was."""
    image = normalized(torch.rand(1, 64, 64))
    small.eval()
    decoder = small.transformer.decoder
    layers = decoder.layers
    with torch.inference_mode():
        answers = small(image)
        decoder.layers = layers[:1]
        try:
            alone = small(image)
        finally:
            decoder.layers = layers
    torch.testing.assert_close(answers[0][0], alone[-1][0])


def test_the_position_code_is_the_published_formula_and_counts_no_padding():
    is_image = torch.ones(2, 3, 5, dtype=torch.bool)
    is_image[1, 2:], is_image[1, :, 4:] = False, False
    code = sine_position(is_image, channels=32)
    torch.testing.assert_close(code[1, :, :2, :4], sine_position(torch.ones(1, 2, 4, dtype=torch.bool), channels=32)[0])
    # channel 0 is the sine of y, channel 1 its cosine; row 2 of 3 lies at 2/3 of the circle
    angle = 2 / (3 + 1e-6) * 2 * math.pi
    assert float(code[0, 0, 1, 0]) == pytest.approx(math.sin(angle), abs=1e-5)
    assert float(code[0, 1, 1, 0]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_new_norms_bring_the_features_to_unit_variance(small):
    image = normalized(torch.rand(2, 96, 96))
    small.set_norms(image)
    with torch.inference_mode():
        features = small.backbone(image)
    assert 0.2 < float(features.std()) < 5


def test_the_stem_and_the_first_stage_never_learn(small):
    frozen = {name for name, one in small.backbone.named_parameters() if not one.requires_grad}
    learning = {name for name, one in small.backbone.named_parameters() if one.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"conv1", "layer1"}
    assert {name.split(".")[0] for name in learning} == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_every_backbone_of_the_ablation_answers(backbone):
    network = DetectionTransformer(backbone=backbone, queries=5, width=32, heads=4, layers=1, feed_width=32).eval()
    with torch.inference_mode():
        logits, boxes = network(normalized(torch.rand(1, 64, 64)))[-1]
    assert logits.shape == (1, 5, 2)
    assert boxes.shape == (1, 5, 4)


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=", ".join(BACKBONE_DEPTHS)):
        DetectionTransformer(backbone="vgg16")


def test_queries_start_far_apart(small):
    """Nearly equal ones would all answer for the same particles; Xavier's rule gives 0.2 here, 0.05 at full size."""
    assert float(small.query_embed.weight.detach().std()) == pytest.approx(1, abs=0.2)
