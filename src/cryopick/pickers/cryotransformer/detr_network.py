"""The detection transformer of the CryoTransformer article: DETR with a ResNet backbone, from `transformers`.

Some things differ from `DetrForObjectDetection` as it stands (transformers 5.23), because the published model has them
otherwise. The outputs of all decoder layers are taken before the final layer norm and each is normalised on its own;
there, with auxiliary losses, the normalised output feeds the next layer. Stages 2 to 4 of the backbone learn; there,
the whole of it is frozen. Initial weights are Xavier-random, as the article says, with the frozen norms of the backbone
set from a first batch: with mean 0 and variance 1 a random ResNet-152 multiplies its signal by millions. The queries,
which are no weights of a layer, start standard normal, as in DETR: Xavier's rule would make them almost equal (standard
deviation 0.05), and equal queries all answer for the same particles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cryopick.errors import MissingExtraError
from cryopick.extras import missing_extra

if TYPE_CHECKING:
    import torch

BACKBONE_DEPTHS: Mapping[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BASIC_BACKBONES = ("resnet18", "resnet34")
"""Two 3 x 3 convolutions per block and a quarter of the channels; the others have bottlenecks."""
STRIDE_PX = 32
CLASSES = 2
"""Particle, and nothing; the article's network has both whichever way they are numbered."""


class DetectionTransformer(nn.Module):
    """(b, 3, h, w) images to a fixed number of answers each.

    Parameters
    ----------
    backbone : one of `BACKBONE_DEPTHS`
    queries : answers per image
    width, heads, layers, feed_width, dropout : of encoder and decoder, which have `layers` layers each
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet152",
        queries: int = 600,
        width: int = 256,
        heads: int = 8,
        layers: int = 6,
        feed_width: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        try:
            from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
        except ImportError as error:
            raise MissingExtraError(missing_extra("sam", "the published CryoTransformer")) from error
        if backbone not in BACKBONE_DEPTHS:
            raise ValueError(f"backbone is {backbone!r}, expected one of: {', '.join(BACKBONE_DEPTHS)}")
        is_basic = backbone in BASIC_BACKBONES
        make_backbone_config: Any = ResNetConfig  # its signature does not show what its base class takes
        make_config: Any = DetrConfig
        backbone_config = make_backbone_config(
            depths=list(BACKBONE_DEPTHS[backbone]),
            hidden_sizes=[64, 128, 256, 512] if is_basic else [256, 512, 1024, 2048],
            layer_type="basic" if is_basic else "bottleneck",
            out_features=["stage4"],
        )
        config = make_config(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone_config=backbone_config,
            num_queries=queries,
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=feed_width,
            decoder_ffn_dim=feed_width,
            dropout=dropout,
            attention_dropout=dropout,
            activation_dropout=dropout,
            num_labels=CLASSES - 1,
            auxiliary_loss=False,
        )
        self.detr = DetrForObjectDetection(config)
        for stage in self.backbone.model.encoder.stages[1:]:
            stage.requires_grad_(True)
        for parameter in self.detr.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.detr.model.query_position_embeddings.weight)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """Logits (b, q, 2) and boxes (b, q, 4) of every decoder layer, the last one last.

        Parameters
        ----------
        images : see `normalized`
        mask : (b, h, w), 1 on the image and 0 on padding

        Returns
        -------
        answers : boxes are centre and size in 0..1 of the padded image
        """
        outputs: list[Tensor] = []
        decoder = self.detr.model.decoder
        hooks = [layer.register_forward_hook(lambda _m, _i, out: outputs.append(out)) for layer in decoder.layers]
        try:
            self.detr.model(pixel_values=images, pixel_mask=mask)
        finally:
            for hook in hooks:
                hook.remove()
        return [self._answer(decoder.layernorm(one)) for one in outputs]

    def _answer(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.detr.class_labels_classifier(state), self.detr.bbox_predictor(state).sigmoid()

    @property
    def backbone(self) -> Any:
        """The ResNet; its stem and first stage never learn."""
        return self.detr.model.backbone

    def set_norms(self, images: Tensor) -> None:
        """Give the frozen norms of the backbone the mean and variance that these images have there (b, 3, h, w)."""
        import torch

        def measure(module: Any, inputs: tuple[Tensor, ...]) -> None:
            variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3))
            module.running_mean.copy_(mean)
            module.running_var.copy_(variance)

        frozen = [module for module in self.backbone.modules() if hasattr(module, "running_mean")]
        hooks = [module.register_forward_pre_hook(measure) for module in frozen]
        try:
            with torch.no_grad():
                self.backbone(images, torch.ones_like(images[:, 0]))
        finally:
            for hook in hooks:
                hook.remove()


def normalized(grey: Tensor) -> Tensor:
    """(b, h, w) grey images in 0..1 as three equal channels, normalised like the pictures of ImageNet."""
    mean = grey.new_tensor([0.485, 0.456, 0.406])[None, :, None, None]
    deviation = grey.new_tensor([0.229, 0.224, 0.225])[None, :, None, None]
    return (grey[:, None] - mean) / deviation


def sine_position(height: int, width: int, *, channels: int = 256) -> torch.Tensor:
    """(channels, height, width) The fixed position code of the encoder, for an image without padding.

    The first half of the channels codes y, the second x: sine on even, cosine on odd channels, of
    `(place from 1 on / (size + 1e-6)) * 2 pi / 10000^(2 floor(i / 2) / (channels / 2))`.
    """
    import math

    import torch

    half = channels // 2
    exponent = 2 * torch.div(torch.arange(half), 2, rounding_mode="floor") / half
    planes = []
    for size, axis in ((height, 0), (width, 1)):
        place = torch.arange(1, size + 1) / (size + 1e-6) * 2 * math.pi
        phase = place[:, None] / 10000.0**exponent
        code = torch.where(torch.arange(half) % 2 == 0, phase.sin(), phase.cos())  # (size, half)
        shape = (half, size, 1) if axis == 0 else (half, 1, size)
        planes.append(code.T.reshape(shape).expand(half, height, width))
    return torch.cat(planes)
