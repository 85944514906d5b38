"""What CryoSegNet's two networks are and how they are trained: the tasks and presets of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.configurations import PAPER_WIDTHS
from cryopick.pickers.cryosegnet.model import PAPER_SIDE_PX, Denoising, View
from cryopick.pickers.cryosegnet.network import architecture_of
from cryopick.pickers.cryosegnet.sam_network import CompactSamSize, compact_architecture
from cryopick.training.quarters import CropTask, QuarterTask
from cryopick.training.trainable import Preset, TrainSettings


@dataclass(frozen=True, kw_only=True)
class UNetTask(QuarterTask):
    """What the U-Net is and what it sees."""

    view: Annotated[
        Literal["planes", "denoised", "published"],
        "planes: detail and background at working scale; denoised: the same scale after the corrected denoiser; "
        "published: the published denoiser, squeezed into a square",
    ] = "planes"
    side_px: Annotated[int, "side of that square"] = PAPER_SIDE_PX
    denoising: Annotated[
        Denoising,
        "before that square: program or article (they differ in the guide of the last filter), none: only stretched to "
        "256 levels, done: the pictures are denoised already, as the authors' JPEGs are",
    ] = "program"
    upside_down: Annotated[
        bool, "that square shows the last row of an MRC first, as in the authors' pictures; JPEG and PNG as they are"
    ] = False
    in_channels: Annotated[int, "planes that it sees in the view `planes`, see `general`"] = 3
    widths: Annotated[tuple[int, ...], "channels per level, finest first, the bottleneck last"] = (48, 96, 128, 160)
    patch_px: Annotated[int, "block of pixels that becomes channels before the first level; 1 as published"] = 4
    align_corners: Annotated[bool, "of the upsampling; true as published"] = False
    gates: Annotated[bool, "attention gates in the skip connections, as published; no for a plain U-Net"] = True
    dice_share: Annotated[float, "weight of the Dice loss; the rest is that of the cross-entropy; 0.5 as published"] = (
        0.15
    )
    batch_size: Annotated[int, "quarters of crops (an even number), or micrographs, per batch"] = 16

    def __post_init__(self) -> None:
        stride = self.patch_px * 2 ** (len(self.widths) - 1)
        if self.view == "published":
            if self.side_px % stride:
                raise SettingsError(f"[task] side_px is {self.side_px}, expected a multiple of {stride}")
        else:
            super().__post_init__()
            if self.example_px % stride:
                raise SettingsError(f"[task] crop_px is {self.crop_px}, expected a multiple of {2 * stride}")
        if self.view == "planes" and self.in_channels not in (2, 3):
            raise SettingsError(f"[task] in_channels is {self.in_channels}, expected 2 or 3")
        changed = [name for name in ("denoising", "upside_down") if getattr(self, name) != _default(name)]
        if changed and self.view != "published":
            raise SettingsError(
                f"[task] {changed[0]} is of view published, and view is {self.view}; leave one of them out"
            )
        if not 0 <= self.dice_share <= 1:
            raise SettingsError(f"[task] dice_share is {self.dice_share}, expected 0 to 1")

    @property
    def marks_junk(self) -> bool:
        """Whether a second map says where junk is; the published network has one map."""
        return self.view != "published"

    @property
    def seen(self) -> View:
        """How micrographs are shown to the network."""
        return View(
            self.view,
            self.side_px,
            self.in_channels if self.view == "planes" else 1,
            denoising=self.denoising,
            is_upside_down=self.upside_down,
        )

    def architecture(self) -> dict[str, Any]:
        """For the card."""
        return architecture_of(
            in_channels=self.seen.in_channels,
            out_channels=2 if self.marks_junk else 1,
            widths=self.widths,
            patch_px=self.patch_px,
            align_corners=self.align_corners,
            gates=self.gates,
        )


def _default(name: str) -> Any:
    return UNetTask.__dataclass_fields__[name].default


@dataclass(frozen=True, kw_only=True)
class SamTask(CropTask):
    """The compact Segment Anything and what it learns from: parts of the U-Net's maps of simulated crops."""

    unet: Annotated[
        Path | None, "weights of the U-Net whose maps it learns to segment; the shipped one when not set"
    ] = None
    image_px: Annotated[int, "side of the pictures that it sees, working pixels"] = 96
    patch_px: Annotated[int, "side of a patch of its image encoder"] = 8
    width: Annotated[int, "channels of the image encoder"] = 96
    depth: Annotated[int, "layers of the image encoder"] = 4
    heads: Annotated[int, "attention heads of the image encoder"] = 4
    decoder_width: Annotated[int, "channels of the mask decoder"] = 48
    batch_size: Annotated[int, "pictures per batch"] = 12
    prompts: Annotated[int, "prompts per picture"] = 8
    mapped_crops: Annotated[int, "simulated crops whose maps are made once and kept in memory, 0.6 MB each"] = 256
    crop_px: Annotated[int, "side of the simulated crops, of which the pictures are parts"] = 448
    simulation_seed: Annotated[int, "seed of the simulated crops; not that of the U-Net's, which knows those"] = 2
    validation_crops: Annotated[int, "simulated crops that judge the network; other seed"] = 8
    calibration_crops: Annotated[int, "simulated crops that the scores are calibrated on; a third seed"] = 48

    def architecture(self) -> dict[str, Any]:
        """For the card."""
        names = ("image_px", "patch_px", "width", "depth", "heads", "decoder_width")
        return compact_architecture(CompactSamSize(**{name: getattr(self, name) for name in names}))


PUBLISHED_TASK: Mapping[str, Any] = {
    "view": "published",
    "upside_down": True,
    "widths": PAPER_WIDTHS,
    "patch_px": 1,
    "align_corners": True,
    "dice_share": 0.5,
    "batch_size": 6,
}
PUBLISHED_TRAINING = TrainSettings(
    epochs=200,  # 165,000 steps of the authors' 4,948 micrographs in batches of 6
    learning_rate=1e-4,
    optimizer="adam",
    weight_decay=0.0,
    schedule="constant",
    warmup_steps=0,
    gradient_clip=0.0,
    ema_decay=0.0,
    validate_every_epochs=1,
    checkpoint_every_epochs=1,
    workers=8,
)

PRESETS: Mapping[str, Preset] = {
    "small": Preset(
        task=UNetTask(),
        training=TrainSettings(
            steps=6000,
            learning_rate=0.015,
            optimizer="muon",
            weight_decay=0.03,
            warmup_steps=100,
            gradient_clip=2.0,
            ema_decay=0.999,
            validate_every=1500,
            checkpoint_every=500,
            precision="bf16-mixed",
            stored_as="float16",
        ),
        about="the shipped U-Net: about 40 minutes on 2 CPU cores with bfloat16 units, and half an hour for its crops",
    ),
    "article": Preset(
        task=UNetTask(**PUBLISHED_TASK, denoising="article"),
        training=PUBLISHED_TRAINING,
        about="the U-Net and training of the article, on labelled micrographs (--data); for a GPU",
    ),
    "program": Preset(
        task=UNetTask(**PUBLISHED_TASK, denoising="program"),
        training=PUBLISHED_TRAINING,
        about="the same with the denoiser as the authors' program has it, which their weights know; for a GPU",
    ),
    "sam": Preset(
        task=SamTask(),
        training=TrainSettings(
            steps=2500,
            learning_rate=2e-3,
            weight_decay=0.01,
            warmup_steps=30,
            gradient_clip=1.0,
            ema_decay=0.995,
            validate_every=2500,
            checkpoint_every=250,
            precision="bf16-mixed",
        ),
        about="the shipped compact Segment Anything, on maps of the shipped U-Net: about 15 minutes on a CPU core",
    ),
}
