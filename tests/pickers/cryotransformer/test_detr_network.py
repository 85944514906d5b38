"""The published network: parameters and shapes as its specification lists them."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

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
    model = published.detr.model
    assert count_parameters(model.encoder) == 7_890_432
    assert count_parameters(model.decoder) == 9_473_024
    heads = published.detr.class_labels_classifier, published.detr.bbox_predictor
    others = model.query_position_embeddings, model.input_projection
    assert sum(count_parameters(part) for part in (*heads, *others)) == 811_270
    assert count_parameters(published.backbone) == 57_992_384
    assert count_parameters(published.backbone, trained_only=True) == 57_769_984
    assert count_parameters(published, trained_only=True) == 75_944_710


def test_shapes_are_those_of_the_specification(published):
    image = normalized(torch.rand(1, 100, 130))
    with torch.inference_mode():
        features, mask = published.backbone(image, torch.ones_like(image[:, 0]))[-1]
        answers = published.eval()(image)
    assert features.shape == (1, 2048, math.ceil(100 / 32), math.ceil(130 / 32))
    assert mask.shape == (1, 4, 5)
    assert len(answers) == 6
    for logits, boxes in answers:
        assert logits.shape == (1, 600, 2)
        assert boxes.shape == (1, 600, 4)
        assert ((boxes >= 0) & (boxes <= 1)).all()


def test_the_last_answers_are_those_of_the_library_and_earlier_ones_differ(small):
    image = normalized(torch.rand(2, 64, 96))
    small.eval()
    with torch.inference_mode():
        expected, answers = small.detr(pixel_values=image), small(image)
    torch.testing.assert_close(answers[-1][0], expected.logits)
    torch.testing.assert_close(answers[-1][1], expected.pred_boxes)
    assert not torch.allclose(answers[0][0], answers[-1][0])


def test_an_earlier_layer_answers_as_if_it_were_the_last(small):
    """Each output is normalised on its own; the next layer gets it as it was."""
    image = normalized(torch.rand(1, 64, 64))
    small.eval()
    layers = small.detr.model.decoder.layers
    with torch.inference_mode():
        answers = small(image)
        small.detr.model.decoder.layers = layers[:1]
        try:
            alone = small(image)
        finally:
            small.detr.model.decoder.layers = layers
    torch.testing.assert_close(answers[0][0], alone[-1][0])


def test_the_position_code_is_the_published_formula(small):
    shape = torch.Size([1, 32, 3, 5])
    mask = torch.ones(1, 3, 5, dtype=torch.bool)
    code = small.detr.model.position_embedding(shape=shape, device="cpu", dtype=torch.float32, mask=mask)
    torch.testing.assert_close(code[0], sine_position(3, 5, channels=32))
    # channel 0 is the sine of y, channel 1 its cosine; row 2 of 3 lies at 2/3 of the circle
    angle = 2 / (3 + 1e-6) * 2 * math.pi
    assert float(code[0, 0, 1, 0]) == pytest.approx(math.sin(angle), abs=1e-5)
    assert float(code[0, 1, 1, 0]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_new_norms_bring_the_features_to_unit_variance(small):
    image = normalized(torch.rand(2, 96, 96))
    small.set_norms(image)
    with torch.inference_mode():
        features, _ = small.backbone(image, torch.ones_like(image[:, 0]))[-1]
    assert 0.2 < float(features.std()) < 5


def test_the_stem_and_the_first_stage_never_learn(small):
    frozen = {name for name, one in small.backbone.model.named_parameters() if not one.requires_grad}
    assert any("embedder" in name for name in frozen)
    assert any("stages.0." in name for name in frozen)
    assert not any(f"stages.{stage}." in name for name in frozen for stage in (1, 2, 3))


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
    assert float(small.detr.model.query_position_embeddings.weight.detach().std()) == pytest.approx(1, abs=0.2)
