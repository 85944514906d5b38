"""DETR by its formulas, on tensors by the names of the authors' checkpoints: nothing of cryopick's networks is used."""

from __future__ import annotations

import math

import torch
from torch.nn import functional
from torch.nn.functional import relu

SIZES = {"queries": 12, "width": 32, "heads": 4, "layers": 2, "feed": 48}
STEM = 8


def authors_tensors(*, depths=(2, 2, 2, 2), stem=STEM, seed=0, classes=2, is_deep=False, **sizes):
    """Random weights under the names that the authors' program saves; basic blocks, or bottlenecks where `is_deep`."""
    generator = torch.Generator().manual_seed(seed)
    queries, width, _, layers, feed = {**SIZES, **sizes}.values()
    tensors = {}

    def put(name, *shape, spread=None):
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
        spread = spread or (fan_in**-0.5 if len(shape) > 1 else 0.1)
        tensors[name] = torch.randn(shape, generator=generator) * spread

    def norm(name, channels):
        for part, low, high in (("weight", 0.7, 1.3), ("running_var", 0.5, 2.0)):
            tensors[f"{name}.{part}"] = low + (high - low) * torch.rand(channels, generator=generator)
        for part in ("bias", "running_mean"):
            put(f"{name}.{part}", channels)

    def layer_norm(name):
        tensors[f"{name}.weight"] = 1 + 0.2 * torch.randn(width, generator=generator)
        put(f"{name}.bias", width)

    body = "backbone.0.body"
    put(f"{body}.conv1.weight", stem, 3, 7, 7)
    norm(f"{body}.bn1", stem)
    before, widening = stem, 4 if is_deep else 1
    for stage, depth in enumerate(depths, start=1):
        inside = stem << (stage - 1)
        out = inside * widening
        for block in range(depth):
            at = f"{body}.layer{stage}.{block}"
            if is_deep:
                kernels = [(inside, before, 1), (inside, inside, 3), (out, inside, 1)]
            else:
                kernels = [(inside, before, 3), (inside, inside, 3)]
            for number, (rows, columns, size) in enumerate(kernels, start=1):
                put(f"{at}.conv{number}.weight", rows, columns, size, size)
                norm(f"{at}.bn{number}", rows)
            if block == 0 and (stage > 1 or out != before):
                put(f"{at}.downsample.0.weight", out, before, 1, 1)
                norm(f"{at}.downsample.1", out)
            before = out
    put("input_proj.weight", width, before, 1, 1)
    put("input_proj.bias", width)
    put("query_embed.weight", queries, width, spread=1.0)
    for part, attentions, norms in (("encoder", ["self_attn"], 2), ("decoder", ["self_attn", "multihead_attn"], 3)):
        for layer in range(layers):
            at = f"transformer.{part}.layers.{layer}"
            for attention in attentions:
                put(f"{at}.{attention}.in_proj_weight", 3 * width, width)
                put(f"{at}.{attention}.in_proj_bias", 3 * width)
                put(f"{at}.{attention}.out_proj.weight", width, width)
                put(f"{at}.{attention}.out_proj.bias", width)
            put(f"{at}.linear1.weight", feed, width)
            put(f"{at}.linear1.bias", feed)
            put(f"{at}.linear2.weight", width, feed)
            put(f"{at}.linear2.bias", width)
            for number in range(1, norms + 1):
                layer_norm(f"{at}.norm{number}")
    layer_norm("transformer.decoder.norm")
    put("class_embed.weight", classes, width, spread=0.5)
    put("class_embed.bias", classes)
    for number, rows in enumerate((width, width, 4)):
        put(f"bbox_embed.layers.{number}.weight", rows, width, spread=2 * width**-0.5)
        put(f"bbox_embed.layers.{number}.bias", rows)
    return tensors


def spread_out(tensors, image):
    """The same with answers that differ: random queries give nearly equal ones. Boxes become small and lie all over.

    Parameters
    ----------
    image : (1, 3, h, w) that the answers are spread on
    """
    logits, boxes = (answer[0].float() for answer in answers_by_formula(tensors, image))
    changed = dict(tensors)
    wanted = {"bbox_embed.layers.2": (boxes.logit(), [0.0, 0.0, -2.0, -2.0], 1.0), "class_embed": (logits, [0, 0], 1.0)}
    for name, (values, middle, deviation) in wanted.items():
        factor = deviation / values.std(dim=0)
        bias = tensors[f"{name}.bias"]
        changed[f"{name}.weight"] = tensors[f"{name}.weight"] * factor[:, None]
        changed[f"{name}.bias"] = torch.tensor(middle) - factor * (values.mean(dim=0) - bias)
    return changed


def answers_by_formula(tensors, images, *, heads=SIZES["heads"]):
    """Logits and boxes of the last decoder layer for (b, 3, h, w) images without padding, basic blocks."""
    t = {name: tensor.to(images.dtype) for name, tensor in tensors.items()}
    body = "backbone.0.body"

    def norm(x, name):
        return functional.batch_norm(
            x, *(t[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")), eps=1e-5
        )

    def layers_of(prefix):
        return sorted({int(name.removeprefix(prefix).split(".")[0]) for name in t if name.startswith(prefix)})

    x = relu(norm(functional.conv2d(images, t[f"{body}.conv1.weight"], stride=2, padding=3), f"{body}.bn1"))
    x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for stage in (1, 2, 3, 4):
        for block in layers_of(f"{body}.layer{stage}."):
            at = f"{body}.layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            y = relu(norm(functional.conv2d(x, t[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn1"))
            y = norm(functional.conv2d(y, t[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
            if f"{at}.downsample.0.weight" in t:
                x = norm(functional.conv2d(x, t[f"{at}.downsample.0.weight"], stride=stride), f"{at}.downsample.1")
            x = relu(x + y)
    x = functional.conv2d(x, t["input_proj.weight"], t["input_proj.bias"])
    count, width, rows, columns = x.shape
    place = torch.tensor(
        [[position(width, r, c, rows, columns) for c in range(columns)] for r in range(rows)], dtype=images.dtype
    ).reshape(rows * columns, 1, width)
    memory = x.flatten(2).permute(2, 0, 1)  # tokens, images, channels

    def attend(at, query, key, value):
        return functional.multi_head_attention_forward(
            query,
            key,
            value,
            width,
            heads,
            t[f"{at}.in_proj_weight"],
            t[f"{at}.in_proj_bias"],
            None,
            None,
            False,
            0.0,
            t[f"{at}.out_proj.weight"],
            t[f"{at}.out_proj.bias"],
            training=False,
            need_weights=True,
        )[0]

    def normed(x, name):
        return functional.layer_norm(x, (width,), t[f"{name}.weight"], t[f"{name}.bias"])

    def linear(x, name):
        return functional.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])

    for layer in layers_of("transformer.encoder.layers."):
        at = f"transformer.encoder.layers.{layer}"
        memory = normed(memory + attend(f"{at}.self_attn", memory + place, memory + place, memory), f"{at}.norm1")
        memory = normed(memory + linear(relu(linear(memory, f"{at}.linear1")), f"{at}.linear2"), f"{at}.norm2")
    queries = t["query_embed.weight"][:, None].expand(-1, count, -1)
    state = torch.zeros_like(queries)
    for layer in layers_of("transformer.decoder.layers."):
        at = f"transformer.decoder.layers.{layer}"
        state = normed(state + attend(f"{at}.self_attn", state + queries, state + queries, state), f"{at}.norm1")
        seen = attend(f"{at}.multihead_attn", state + queries, memory + place, memory)
        state = normed(state + seen, f"{at}.norm2")
        state = normed(state + linear(relu(linear(state, f"{at}.linear1")), f"{at}.linear2"), f"{at}.norm3")
    state = normed(state, "transformer.decoder.norm")
    boxes = linear(
        relu(linear(relu(linear(state, "bbox_embed.layers.0")), "bbox_embed.layers.1")),
        "bbox_embed.layers.2",
    )
    return linear(state, "class_embed").transpose(0, 1), boxes.sigmoid().transpose(0, 1)


def position(width, row, column, rows, columns):
    """The code of one cell, number by number: y in the first half of the channels, x in the second."""
    code = []
    for place, size in ((row, rows), (column, columns)):
        angle = (place + 1) / (size + 1e-6) * 2 * math.pi
        for channel in range(width // 2):
            phase = angle / 10000 ** (2 * (channel // 2) / (width // 2))
            code.append(math.sin(phase) if channel % 2 == 0 else math.cos(phase))
    return code
