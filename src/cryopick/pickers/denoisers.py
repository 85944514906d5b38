"""Denoisers by name, for `cryopick denoise`: those that systems share stand here, a system's own in its package.

The package of a picker with a denoiser of its own says in its `__init__`

    @register_denoiser
    def denoiser() -> Denoiser:
        from cryopick.pickers.cryoemmae.denoise import prepare_cryoemmae
        ...
        return Denoiser(name="cryoemmae", about=..., denoise=...)

so that a new denoiser is one row, of the command line too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.processing.denoise.corrected import denoise_corrected
from cryopick.processing.denoise.published import SHIFT_XY_PX, denoise_published


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """What one denoiser does with a micrograph.

    Parameters
    ----------
    about : for the list of denoisers, one line
    denoise : takes pixels (h, w) as stored, particles dark, and the particle diameter in these pixels, NaN where it is
        not needed; gives (h', w') uint8, or floating in [0, 1]
    needs_diameter : whether it looks at the diameter
    shift_xy_px : where content lies in the result less where it was, in pixels of the micrograph as stored
    """

    name: str
    about: str
    denoise: Callable[[NDArray[np.float32], float], NDArray[Any]]
    needs_diameter: bool = False
    shift_xy_px: tuple[float, float] = (0.0, 0.0)

    def __call__(self, pixels: NDArray[np.float32], *, diameter_px: float | None = None) -> NDArray[Any]:
        """The denoised micrograph.

        Raises
        ------
        SettingsError
            If the diameter is missing, or given and not looked at.
        """
        if self.needs_diameter and diameter_px is None:
            raise SettingsError(f"denoiser {self.name!r} needs the particle diameter (180A, 108px)")
        if not self.needs_diameter and diameter_px is not None:
            raise SettingsError(f"denoiser {self.name!r} does not look at the particle diameter; leave it out")
        return self.denoise(pixels, math.nan if diameter_px is None else diameter_px)


_makers: list[Callable[[], Denoiser]] = []


def register_denoiser(make: Callable[[], Denoiser]) -> Callable[[], Denoiser]:
    """Decorator of a function that makes a denoiser's row; it imports what it needs when it is called."""
    _makers.append(make)
    return make


def denoisers() -> dict[str, Denoiser]:
    """Every denoiser by name.

    Raises
    ------
    SettingsError
        If two have one name.
    """
    from cryopick.pickers.registry import list_pickers

    list_pickers()  # imports the packages, which register theirs
    found: dict[str, Denoiser] = {}
    for make in _makers:
        one = make()
        if one.name in found:
            raise SettingsError(f"two denoisers are called {one.name!r}")
        found[one.name] = one
    return found


def find_denoiser(name: str) -> Denoiser:
    """A denoiser by name; unknown names are listed against the known ones (`SettingsError`)."""
    known = denoisers()
    if name not in known:
        raise SettingsError(f"no denoiser is called {name!r}; known: {', '.join(known)}")
    return known[name]


@register_denoiser
def published() -> Denoiser:
    """Of the programs of CryoTransformer and CryoSegNet."""
    return Denoiser(
        name="published",
        about="as the programs of CryoTransformer and CryoSegNet do it, at full size; content moves 3 px up and left",
        denoise=lambda pixels, _: denoise_published(pixels).image,
        shift_xy_px=SHIFT_XY_PX,
    )


@register_denoiser
def article() -> Denoiser:
    """As the articles of CryoTransformer and CryoSegNet describe it."""
    return Denoiser(
        name="article",
        about="as the articles of CryoTransformer and CryoSegNet say: the equalised image guides the last filter",
        denoise=lambda pixels, _: denoise_published(pixels, guide="equalized").image,
        shift_xy_px=SHIFT_XY_PX,
    )


@register_denoiser
def corrected() -> Denoiser:
    """The package's own."""
    return Denoiser(
        name="corrected",
        about="the same ideas, mended: nothing moves, lengths go with the particle, which becomes 24 px wide",
        denoise=lambda pixels, diameter_px: denoise_corrected(pixels, diameter_px=diameter_px)[0],
        needs_diameter=True,
    )
