"""What `--as article` and `--as program` set, and which settings mean nothing without Segment Anything."""

from __future__ import annotations

from collections.abc import Mapping

from cryopick.pickers.configurations import Configuration, ConfigurationName

PAPER_WIDTHS = (64, 128, 256, 512, 1024, 2048)
"""Channels of the published U-Net: five levels, then the bottleneck."""
OF_PROGRAM = ("kept_iou", "box_diameter", "jittered_duplicates")
"""Settings of the published post-processing."""
OF_SAM = (
    "sam",
    "modules",
    "prompts",
    "points_per_side",
    "crop_layers",
    "postprocessing",
    "predicted_iou",
    "stability",
    "nms_iou",
    "smallest_region_px",
    *OF_PROGRAM,
)
"""Settings that say how Segment Anything is used."""

_BOTH = {
    "segmenter": "sam",
    "prompts": "grid",
    "points_per_side": 32,
    "predicted_iou": 0.88,
    "stability": 0.95,
    "nms_iou": 0.7,
    "postprocessing": "published",
    "kept_iou": 0.94,
    "precision": "float32",
    "as_found": True,
}
_PIXELS = (
    "defective pixels of a micrograph are mended before, and a strong gradient of brightness is told of, as in every "
    "run; the program takes all pixels as they are"
)

CONFIGURATIONS: Mapping[ConfigurationName, Configuration] = {
    "article": Configuration(
        about="the system of the article; wants its U-Net (--weights FILE.pth) and Meta's ViT-H (--sam FILE.pth)",
        settings={
            **_BOTH,
            "crop_layers": 2,
            "smallest_region_px": 100.0,
            "box_diameter": False,
            "jittered_duplicates": False,
        },
        departs=(
            "the article names zoomed crops and the removal of small regions without numbers: those of Segment "
            "Anything's own article are taken, 2 x 2 crops with 16 x 16 points and 4 x 4 with 8 x 8, and 100 pixels",
            "its threshold on the predicted IoU is one per protein and not listed: that of the program, 0.94, is taken "
            "(--kept-iou)",
            "micrographs are denoised as the weights learnt: the authors' by their program, which exchanges picture "
            "and guide of the last filter; those of `cryopick train cryosegnet --as article` as the article says",
            "a pick's diameter is that of a disc as large as the median mask; the article says nothing of it",
            _PIXELS,
        ),
    ),
    "program": Configuration(
        about="the authors' program, faults included; wants its U-Net (--weights FILE.pth) and Meta's ViT-H "
        "(--sam FILE.pth)",
        settings={
            **_BOTH,
            "crop_layers": 0,
            "smallest_region_px": 0.0,
            "box_diameter": True,
            "jittered_duplicates": True,
        },
        departs=(
            "a micrograph on which nothing passes gives no picks and says why, where the program stops",
            "the places of duplicates are random but the same in every run; those outside the micrograph are left out",
            "coordinates count in the rows of the file; the program's differ from script to script",
            _PIXELS,
        ),
    ),
}
