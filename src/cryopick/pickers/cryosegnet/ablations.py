"""What the article compares, as settings: its modules, and its U-Net with one thing changed (Tables S1, S7 to S11).

For benchmarks and `cryopick reproduce`; the supplement itself is not at hand, so that rows beyond those that the text
names are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryopick.pickers.cryosegnet.configurations import PAPER_WIDTHS

MODULES: Mapping[str, Mapping[str, Any]] = {
    "U-Net": {"modules": "unet"},
    "U-Net + SAM": {"modules": "unet+sam"},
    "U-Net + SAM + post-processing": {"modules": "all"},
    "SAM alone": {"modules": "sam"},
}
"""Settings of the picker, besides `--as article` or `--as program`."""


def ablations(widths: tuple[int, ...] = PAPER_WIDTHS) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Changes of the task by row, by what is ablated; the row without a change is the published network.

    Parameters
    ----------
    widths : of the published network, or of a smaller one: levels, then the bottleneck
    """
    levels = len(widths) - 1
    return {
        "levels": {
            f"{levels - 1} levels": {"widths": widths[:-1]},
            f"{levels} levels": {},
            f"{levels + 1} levels": {"widths": (*widths, 2 * widths[-1])},
        },
        "gates": {"with attention gates": {}, "without": {"gates": False}},
        "loss": {
            "cross-entropy and Dice": {},
            "cross-entropy": {"dice_share": 0.0},
            "Dice": {"dice_share": 1.0},
        },
        "denoising": {
            "as the article": {"denoising": "article"},
            "as the program": {"denoising": "program"},
            "not denoised": {"denoising": "none"},
        },
    }
