"""Particle images cut out of micrographs, with the optics that each was seen through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.processing.ctf import CtfParameters, ctf_at
from cryopick.types import Micrograph

FAST_FACTORS = (2, 3, 5, 7)
"""Boxes are made of these factors, which Fourier transforms take fastest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ContrastTransfer:
    """What lens each particle was seen through; every array has one value per particle.

    Parameters
    ----------
    defocus_u_angstrom, defocus_v_angstrom : underfocus positive, along and across `astigmatism_angle_deg`
    astigmatism_angle_deg : `rlnDefocusAngle`, from the x axis towards growing rows
    voltage_kv, cs_mm, amplitude_contrast, phase_shift_deg : see `cryopick.processing.ctf.CtfParameters`
    b_factor_angstrom2 : envelope `exp(-B k^2 / 4)`, 0 for none
    """

    defocus_u_angstrom: NDArray[np.float64]
    defocus_v_angstrom: NDArray[np.float64]
    astigmatism_angle_deg: NDArray[np.float64]
    voltage_kv: NDArray[np.float64]
    cs_mm: NDArray[np.float64]
    amplitude_contrast: NDArray[np.float64]
    phase_shift_deg: NDArray[np.float64]
    b_factor_angstrom2: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = np.size(self.defocus_u_angstrom)
        for one in fields(self):
            values = np.asarray(getattr(self, one.name), dtype=np.float64).reshape(-1)
            if len(values) != count:
                raise SettingsError(f"CTF: {count} values of defocus_u_angstrom but {len(values)} of {one.name}")
            if not np.isfinite(values).all():
                raise SettingsError(f"CTF: {one.name} of particle {int(np.argmin(np.isfinite(values)))} is not finite")
            object.__setattr__(self, one.name, values)

    @classmethod
    def of_micrographs(cls, optics: Sequence[CtfParameters], micrograph: ArrayLike) -> ContrastTransfer:
        """Each particle as its micrograph was seen.

        Parameters
        ----------
        optics : of every micrograph
        micrograph : (n,) int, which micrograph each particle comes from
        """
        rows = np.asarray(micrograph, dtype=np.int64).reshape(-1)

        def column(name: str, factor: float = 1.0) -> NDArray[np.float64]:
            return np.array([getattr(one, name) * factor for one in optics], dtype=np.float64)[rows]

        return cls(
            defocus_u_angstrom=column("defocus_u_um", 1e4),
            defocus_v_angstrom=column("defocus_v_um", 1e4),
            astigmatism_angle_deg=column("astigmatism_angle_deg"),
            voltage_kv=column("voltage_kv"),
            cs_mm=column("spherical_aberration_mm"),
            amplitude_contrast=column("amplitude_contrast"),
            phase_shift_deg=column("phase_shift_deg"),
            b_factor_angstrom2=column("b_factor_angstrom2"),
        )

    def __len__(self) -> int:
        return len(self.defocus_u_angstrom)

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> ContrastTransfer:
        """Those of the particles at `index`, integers or a mask."""
        return replace(self, **{one.name: getattr(self, one.name)[index] for one in fields(self)})

    def without_astigmatism(self) -> ContrastTransfer:
        """With the mean of both defoci in every direction, so that the transfer depends on the radius alone."""
        mean = (self.defocus_u_angstrom + self.defocus_v_angstrom) / 2
        return replace(self, defocus_u_angstrom=mean, defocus_v_angstrom=mean)

    def at(self, frequency_x: NDArray[np.floating], frequency_y: NDArray[np.floating]) -> NDArray[np.float32]:
        """Transfer from projected density to image with protein bright: RELION's sign, positive near frequency 0.

        Parameters
        ----------
        frequency_x, frequency_y : (m,) in 1/Å

        Returns
        -------
        transfer : (n, m) float32
        """
        columns = np.stack([getattr(self, one.name) for one in fields(self)], axis=1)
        distinct, which = np.unique(columns, axis=0, return_inverse=True)  # particles of a micrograph share theirs
        transfer = np.empty((len(distinct), len(frequency_x)), dtype=np.float32)
        for row, (u, v, angle, voltage, cs, amplitude, phase, b_factor) in zip(
            transfer, distinct.tolist(), strict=True
        ):
            optics = CtfParameters(
                defocus_u_um=u * 1e-4,
                defocus_v_um=v * 1e-4,
                astigmatism_angle_deg=angle,
                voltage_kv=voltage,
                spherical_aberration_mm=cs,
                amplitude_contrast=amplitude,
                phase_shift_deg=phase,
                b_factor_angstrom2=b_factor,
            )
            row[:] = -ctf_at(frequency_x, frequency_y, optics)
        return np.asarray(transfer[which.reshape(-1)])


@dataclass(frozen=True, kw_only=True, eq=False)
class ParticleStack:
    """Particle images of one pixel size with all that reconstruction asks for; arrays have one row per particle.

    Parameters
    ----------
    images : (n, box, box) float32, protein bright, background of mean 0 and standard deviation 1; box even
    pixel_size_angstrom : of the images
    diameter_angstrom : of the particle
    ctf : or None where it is unknown; then nothing is corrected, and whoever shows a number must say so
    micrograph : (n,) int, which micrograph each comes from
    centres_px : (n, 2) what the boxes were cut around, in the stored micrograph (see `extraction_centres`)
    """

    images: NDArray[np.float32]
    pixel_size_angstrom: float
    diameter_angstrom: float
    ctf: ContrastTransfer | None
    micrograph: NDArray[np.int64]
    centres_px: NDArray[np.float64]

    def __post_init__(self) -> None:
        images = np.ascontiguousarray(self.images, dtype=np.float32)
        if images.ndim != 3 or images.shape[1] != images.shape[2]:
            raise ValueError(f"particle images: expected an array (n, box, box), got shape {images.shape}")
        require_even_box(images.shape[1])
        if not self.pixel_size_angstrom > 0 or not self.diameter_angstrom > 0:
            raise SettingsError(
                f"particles of {self.diameter_angstrom:g} Å in pixels of {self.pixel_size_angstrom:g} Å: expected both "
                "above 0"
            )
        if self.diameter_angstrom > images.shape[1] * self.pixel_size_angstrom:
            raise SettingsError(
                f"a box of {images.shape[1]} px ({images.shape[1] * self.pixel_size_angstrom:g} Å) does not hold a "
                f"particle of {self.diameter_angstrom:g} Å; extract larger boxes, 1.5 diameters are usual"
            )
        micrograph = np.asarray(self.micrograph, dtype=np.int64).reshape(-1)
        centres = np.asarray(self.centres_px, dtype=np.float64).reshape(-1, 2)
        for name, count in (("micrograph", len(micrograph)), ("centres_px", len(centres))):
            if count != len(images):
                raise ValueError(f"{len(images)} particle images but {count} rows of {name}")
        if self.ctf is not None and len(self.ctf) != len(images):
            raise ValueError(f"{len(images)} particle images but the CTF of {len(self.ctf)}")
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "micrograph", micrograph)
        object.__setattr__(self, "centres_px", centres)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def box_px(self) -> int:
        """Edge of the images."""
        return int(self.images.shape[1])

    def take(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> ParticleStack:
        """The particles at `index`, integers or a mask."""
        return replace(
            self,
            images=self.images[index],
            ctf=None if self.ctf is None else self.ctf.take(index),
            micrograph=self.micrograph[index],
            centres_px=self.centres_px[index],
        )

    def rescaled(self, box_px: int) -> ParticleStack:
        """The same field of view on `box_px` coarser pixels (spectrum cut), normalised anew outside the particle."""
        require_even_box(box_px)
        if box_px > self.box_px:
            raise SettingsError(f"images of {self.box_px} px cannot be cut to {box_px} px; give at most {self.box_px}")
        if box_px == self.box_px:
            return self
        pixel_size = self.pixel_size_angstrom * self.box_px / box_px
        radius = background_radius(box_px, self.diameter_angstrom / pixel_size)
        images = normalized_background(with_spectrum_cut(self.images, box_px), radius_px=radius)
        return replace(self, images=images, pixel_size_angstrom=pixel_size)


def require_even_box(box_px: int) -> None:
    """Refuse boxes that have no centre pixel `box // 2` in common with their Fourier-cut versions.

    Raises
    ------
    SettingsError
        The box is odd or too small to hold anything.
    """
    if box_px % 2 or box_px < 8:
        raise SettingsError(f"a box of {box_px} px: expected an even number of at least 8; {good_box(box_px)} would do")


def good_box(box_px: float) -> int:
    """The smallest even box of at least this edge whose only prime factors are 2, 3, 5 and 7."""
    size = max(8, 2 * math.ceil(box_px / 2 - 1e-9))
    while True:
        rest = size
        for factor in FAST_FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def background_radius(box_px: int, diameter_px: float) -> float:
    """Radius beyond which an image counts as background: outside the particle, at least 2 px from the box's edge."""
    return min(1.1 * diameter_px / 2, box_px / 2 - 2)


def extraction_centres(centres_px: ArrayLike) -> NDArray[np.float64]:
    """(n, 2) the whole pixels that boxes are cut around; what is left of a centre is the particle's known shift."""
    return np.rint(np.asarray(centres_px, dtype=np.float64).reshape(-1, 2))


def extract_particles(
    micrograph: Micrograph | NDArray[np.float32],
    centres_px: ArrayLike,
    *,
    box_px: int,
    scaled_px: int,
    background_radius_px: float,
    overhang_px: float = 0.0,
    invert: bool = True,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cut boxes out of a micrograph, as `relion_preprocess --extract --scale --norm --invert_contrast` does.

    Parameters
    ----------
    micrograph : particles dark (`invert`), all pixels finite
    centres_px : (n, 2); boxes are cut around `extraction_centres` of them
    box_px : edge of the boxes in the micrograph's pixels, even
    scaled_px : edge after cutting the spectrum, even, at most `box_px`
    background_radius_px : in scaled pixels; a plane fitted outside of it is subtracted, and its spread becomes 1
    overhang_px : how far a box may reach over the micrograph's border; missing pixels repeat the border's
    invert : protein becomes bright

    Returns
    -------
    images : (k, scaled_px, scaled_px) float32
    kept : (k,) int, the rows of `centres_px` that they are; those too near to the border are left out

    Raises
    ------
    SettingsError
        Odd boxes, a background outside the box, a micrograph with pixels that are not finite.
    """
    pixels = micrograph.pixels if isinstance(micrograph, Micrograph) else np.asarray(micrograph, dtype=np.float32)
    for size in (box_px, scaled_px):
        require_even_box(size)
    if scaled_px > box_px:
        raise SettingsError(f"boxes of {box_px} px cannot be scaled up to {scaled_px} px; give at most {box_px}")
    if not 0 < background_radius_px <= scaled_px / 2:
        raise SettingsError(
            f"background radius {background_radius_px:g} px in boxes of {scaled_px} px: expected inside"
        )
    if not np.isfinite(pixels).all():
        raise SettingsError(
            f"the micrograph holds {np.count_nonzero(~np.isfinite(pixels))} pixels that are not finite; repair it first"
        )
    corners = extraction_centres(centres_px).astype(np.int64) - box_px // 2  # (n, 2)
    height, width = pixels.shape
    beyond = np.maximum(-corners, corners + box_px - np.array([width, height])).max(axis=1, initial=-(10**9))
    kept = np.flatnonzero(beyond <= max(0.0, overhang_px))
    boxes = np.empty((len(kept), box_px, box_px), dtype=np.float32)
    along = np.arange(box_px)
    for box, (x, y) in zip(boxes, corners[kept], strict=True):
        rows, columns = np.clip(y + along, 0, height - 1), np.clip(x + along, 0, width - 1)
        box[:] = pixels[rows[:, None], columns]
    images = normalized_background(with_spectrum_cut(boxes, scaled_px), radius_px=background_radius_px)
    return (-images if invert else images), kept


def with_spectrum_cut(images: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
    """Sample square images of even edge on fewer pixels; the mean stays, and so does the middle pixel.

    The highest frequency is kept as it is, as RELION does.
    """
    size = images.shape[-1]
    if size == size_px:
        return images
    half = size_px // 2
    spectrum = fft.rfft2(images, axes=(1, 2))[:, :, : half + 1]
    cut = np.concatenate([spectrum[:, : half + 1], spectrum[:, size - half + 1 :]], axis=1)
    cut *= (size_px / size) ** 2
    return np.asarray(fft.irfft2(cut, s=(size_px, size_px), axes=(1, 2)), dtype=np.float32)


def normalized_background(images: NDArray[np.float32], *, radius_px: float) -> NDArray[np.float32]:
    """Subtract a plane fitted outside a circle around pixel `box // 2`, and divide by the spread that is left there.

    Parameters
    ----------
    images : (n, box, box)
    radius_px : of the circle

    Returns
    -------
    images : (n, box, box) float32; an image whose background is flat becomes 0 everywhere
    """
    box = images.shape[1]
    along = (np.arange(box) - box // 2).astype(np.float64)
    is_background = along[:, None] ** 2 + along**2 > radius_px**2
    plane = np.stack(np.broadcast_arrays(along, along[:, None], 1.0), axis=-1).reshape(-1, 3)  # (box^2, 3)
    outside = is_background.ravel()
    flat = images.reshape(len(images), -1).astype(np.float64)
    coefficients = flat[:, outside] @ np.linalg.pinv(plane[outside]).T  # (n, 3)
    flat = flat - coefficients @ plane.T
    spread = flat[:, outside].std(axis=1)
    is_flat = spread <= 1e-6 * np.abs(images).max(initial=1e-30)
    flat /= np.where(is_flat, np.inf, spread)[:, None]
    return np.asarray(flat.reshape(images.shape), dtype=np.float32)
