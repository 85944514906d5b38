"""Sizes of a validation: the box that is cut out, and the pixels that it is binned to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cryopick.errors import SettingsError
from cryopick.reconstruction.particles import background_radius, good_box

BOX_PER_DIAMETER = 1.5
"""What surrounds a particle is needed for its CTF's fringes; RELION's tutorial and all five papers use 1.5 or more."""
PIXELS_PER_DIAMETER = 32
"""Nyquist is a sixteenth of the diameter: what some hundred to some thousand particles reach, at a price that a
laptop pays. Finer pixels are asked for with `--angpix`."""
SMALLEST_BOX_PX = 16


@dataclass(frozen=True, kw_only=True)
class BoxGeometry:
    """How particles are cut out and binned.

    Parameters
    ----------
    diameter_angstrom : of the particle
    micrograph_pixel_angstrom : Å per pixel of the micrographs
    box_px : even side of the box in pixels of the micrograph
    scaled_px : even side after binning
    """

    diameter_angstrom: float
    micrograph_pixel_angstrom: float
    box_px: int
    scaled_px: int

    def __post_init__(self) -> None:
        for name in ("box_px", "scaled_px"):
            value = getattr(self, name)
            if value % 2:
                raise SettingsError(
                    f"the box is {value} pixels, expected an even number (half of it lies on each side of the "
                    f"particle); give --box {value + 1}px"
                )
        if self.box_px * self.micrograph_pixel_angstrom < 1.1 * self.diameter_angstrom:
            raise SettingsError(
                f"the box is {self.box_px * self.micrograph_pixel_angstrom:.0f} Å wide and the particle "
                f"{self.diameter_angstrom:.0f} Å; expected a box of 1.5 diameters"
            )
        self.require_pixels(SMALLEST_BOX_PX)

    def require_pixels(self, smallest_px: int, *, why: str = "") -> None:
        """Raise where the binned box has fewer pixels than something needs."""
        if self.scaled_px < smallest_px:
            raise SettingsError(
                f"the box has {self.scaled_px} pixels of {self.pixel_size_angstrom:.2f} Å, expected {smallest_px} or "
                f"more{why}; give finer pixels (--angpix)"
            )

    @property
    def pixel_size_angstrom(self) -> float:
        """Å per pixel of the binned images and of the maps."""
        return self.box_px * self.micrograph_pixel_angstrom / self.scaled_px

    @property
    def nyquist_angstrom(self) -> float:
        """Finest detail that the binned images hold."""
        return 2 * self.pixel_size_angstrom

    @property
    def diameter_px(self) -> float:
        """In pixels of the micrograph."""
        return self.diameter_angstrom / self.micrograph_pixel_angstrom

    @property
    def background_radius_px(self) -> float:
        """In binned pixels: outside the particle, and at least two pixels inside the box."""
        return background_radius(self.scaled_px, self.diameter_angstrom / self.pixel_size_angstrom)


def box_geometry(
    diameter_angstrom: float,
    micrograph_pixel_angstrom: float,
    *,
    box_px: int | None = None,
    angpix: float | None = None,
) -> BoxGeometry:
    """Sizes for a particle; what is not given follows from its diameter.

    Parameters
    ----------
    box_px : side of the box in pixels of the micrograph; None takes 1.5 diameters, rounded up to an even number whose
        prime factors are 2, 3, 5 and 7
    angpix : wanted Å per binned pixel; None takes a thirty-second of the diameter, and never finer than the micrograph

    Raises
    ------
    SettingsError
        An odd box, one that the particle does not fit into, or pixels finer than the micrograph's.
    """
    if angpix is not None and angpix < micrograph_pixel_angstrom * (1 - 1e-6):
        raise SettingsError(
            f"--angpix is {angpix:g} Å and the micrographs have {micrograph_pixel_angstrom:g} Å; expected at least that"
        )
    box = good_box(BOX_PER_DIAMETER * diameter_angstrom / micrograph_pixel_angstrom) if box_px is None else box_px
    wanted = angpix or max(micrograph_pixel_angstrom, diameter_angstrom / PIXELS_PER_DIAMETER)
    exact = box * micrograph_pixel_angstrom / wanted
    scaled = min(2 * round(exact / 2), box) if angpix is not None else min(_nearest_good(exact), box)
    return BoxGeometry(
        diameter_angstrom=float(diameter_angstrom),
        micrograph_pixel_angstrom=float(micrograph_pixel_angstrom),
        box_px=int(box),
        scaled_px=int(scaled),
    )


def _nearest_good(exact: float) -> int:
    above = good_box(exact)
    below = 2 * math.floor(exact / 2 + 1e-9)
    while below > 8 and good_box(below) != below:
        below -= 2
    return below if exact - below <= above - exact else above
