"""Pickers whose workers come to harm; a module of its own, so that worker processes can import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cryopick.geometry.units import Length
from cryopick.pickers.survey import Survey
from cryopick.types import Micrograph, Picks


@dataclass(frozen=True, kw_only=True)
class HangingPicker:
    """Marks the middle; stops its process where the name holds `hanging`, as a dead network disk does."""

    name: ClassVar[str] = "hanging"
    score_meaning: ClassVar[str] = "always 1"
    default_threshold: ClassVar[float] = 0.5
    diameter: Length | None = None

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        if "hanging" in micrograph.name:
            os.kill(os.getpid(), signal.SIGSTOP)
        height, width = micrograph.shape_yx
        return Picks(xy_px=np.array([[width / 2, height / 2]]), score=np.ones(1, np.float32))


@dataclass(frozen=True, kw_only=True)
class CardPicker(HangingPicker):
    """Says which graphics cards its process sees, after a moment in which other workers get something to do, too."""

    name: ClassVar[str] = "card"
    device: str = "auto"

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        time.sleep(0.3)
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        return replace(super().pick(micrograph, survey), warnings=(f"sees {seen}",))


@dataclass(frozen=True, kw_only=True)
class NoStartPicker(HangingPicker):
    """Kills every worker that is made ready while the file `lives` counts none left; the parent is spared."""

    name: ClassVar[str] = "no-start"
    lives: str
    """A path, as text: the content of files that settings name must not change while a run lasts."""
    parent: int

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.getpid() == self.parent:
            return
        lives = Path(self.lives)
        deaths = lives.with_suffix(f".{os.getpid()}")
        wanted = int(lives.read_text())
        if wanted < 0 or sum(1 for _ in lives.parent.glob(f"{lives.stem}.*")) - 1 < wanted:
            deaths.touch()
            print("no room for the weights", file=__import__("sys").stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
