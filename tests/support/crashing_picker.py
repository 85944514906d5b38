"""A picker whose process dies on one micrograph; a module of its own, so that worker processes can import it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cryopick.geometry.units import Length
from cryopick.pickers.survey import Survey
from cryopick.types import Micrograph, Picks


@dataclass(frozen=True, kw_only=True)
class CrashingPicker:
    """Marks the middle; kills its process where the name holds `deadly`."""

    name: ClassVar[str] = "crashing"
    score_meaning: ClassVar[str] = "always 1"
    default_threshold: ClassVar[float] = 0.5
    diameter: Length | None = None

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        if "deadly" in micrograph.name:
            os.kill(os.getpid(), signal.SIGKILL)
        height, width = micrograph.shape_yx
        return Picks(xy_px=np.array([[width / 2, height / 2]]), score=np.ones(1, np.float32))
