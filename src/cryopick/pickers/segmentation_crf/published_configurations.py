"""What `--as article` and `--as program` set: the published pipeline of Chung and Chou."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryopick.pickers.configurations import Configuration, ConfigurationName

OF_WEIGHTS = "of-weights"
"""The backbone is what the weights hold."""
ANY_AREA = 1e9
"""No region is larger, so that nothing is told in diameters."""
PROGRAM_RIM_PX = 128
"""The notebooks cut 3840 of 4096 pixels out of the middle of each micrograph."""
_SHARED: Mapping[str, Any] = {
    "backbone": OF_WEIGHTS,
    "views": 1,
    "split": "components",
    "min_area": 0.0,
    "max_area": ANY_AREA,
    "recentre": False,
    "added_noise": 0.0,
    "precision": "float32",
    "crf": "dense",
    "as_found": True,
}
"""What both published configurations set."""
_NO_COORDINATES = (
    "the abstract and the notebooks give maps and no coordinates: here each connected region is one pick, at the mean "
    "place of its pixels, as the authors' later work takes the true centres from true masks; give --diameter with "
    "--min-area, or --split distance, to drop specks or part particles that touch"
)
CONFIGURATIONS: Mapping[ConfigurationName, Configuration] = {
    "article": Configuration(
        about="The published pipeline: torchvision's FCN or DeepLabv3 on the micrograph at full resolution, its grey "
        "values normalised as by topaz, then the fully connected random field; needs --weights of such a network.",
        settings={"pipeline": "article", **_SHARED, "crf_parameters": "published"},
        departs=(
            _NO_COORDINATES,
            "the abstract tells neither the pieces in which a micrograph is seen nor the random field's constants: "
            "they are those of the notebooks, without their mix-up of axes",
            "a pixel sends itself no message (Krähenbühl and Koltun, eq. 3); pydensecrf adds it",
            "sums of the random field run on a bilateral grid, not on a permutohedral lattice",
        ),
    ),
    "program": Configuration(
        about="The same as the notebooks run it: softmax before the answer is enlarged, 128 px left out at every "
        "border, the random field's widths on the wrong axes; needs --weights of such a network.",
        settings={
            "pipeline": "program",
            **_SHARED,
            "crf_parameters": "published-with-axis-fault",
            "rim_px": PROGRAM_RIM_PX,
        },
        departs=(
            _NO_COORDINATES,
            "the notebooks take micrographs of 4096 x 4096 alone and keep 3840 x 3840 of them; here a rim of 128 px "
            "is left out of any size (--rim-px)",
            "topaz draws the pixels that it fits at random, without a seed; here the seed is fixed",
            "sums of the random field run on a bilateral grid, not on a permutohedral lattice",
        ),
    ),
}
