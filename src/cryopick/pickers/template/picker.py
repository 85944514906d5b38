"""`template`: correlation with rotated 2-D references, or with projections of a map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.rotations import euler_to_matrix
from cryopick.geometry.units import Length
from cryopick.inference.models import HoldsModels
from cryopick.io.images.mrc import probe_mrc, read_mrc_stack
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import TOLD_FIELDS, Survey
from cryopick.pickers.template.images import (
    angle_count,
    estimate_diameter_px,
    is_bright,
    rotated_templates,
    subtract_rim,
    view_directions,
)
from cryopick.processing.fourier import chance_spread, normalized_correlation
from cryopick.processing.normalize import normalize_locally
from cryopick.processing.peaks import find_peaks
from cryopick.processing.scale import resample
from cryopick.types import Micrograph, Picks

WORKING_DIAMETER_PX = 14.0
"""Micrographs are resampled to this many pixels per diameter: detail down to a seventh of the diameter is compared."""
WINDOW_RADII = 1.6
"""Radius of the window that is compared, in particle radii: the particle and a rim of background."""
SPREAD_LIMITS = (0.07, 0.13)
"""Of chance correlations, see `chance_spread`; the best of many templates spreads a little wider than a single one."""
CANDIDATE_FLOOR = 2.2
"""Candidates have at least this score; in noise alone there are many of them."""
SMALLEST_DIAMETER_PX = 4.0
"""Below it a reference has no shape."""


@register_picker("template")
@dataclass(frozen=True, kw_only=True)
class TemplatePicker(HoldsModels):
    """Correlates the micrograph with references at all in-plane angles, normalised by the image under each.

    References are class averages or other 2-D images (a stack), or a 3-D map, which is projected along directions
    spread over the sphere. A place is compared with its best reference and angle (A. M. Roseman, Ultramicroscopy 94
    (2003) 225-236); flat places score 0 because the variance under the window is floored. The unit of the score is the
    spread of chance, told by the correlation with the inverted references. Time grows with the number of references
    times the number of angles.
    """

    name: ClassVar[str]
    score_meaning: ClassVar[str] = (
        "correlation with the best reference and angle, in standard deviations of chance; 0 to about 12"
    )
    default_threshold: ClassVar[float] = 3.6
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS

    references: Annotated[Path | None, "MRC stack of 2-D references (.mrcs), or a 3-D map (.mrc, .map)"] = None
    diameter: Annotated[Length | None, "particle diameter; where not set, measured on the references"] = None
    references_pixel_size_angstrom: Annotated[
        float | None, "Å per pixel of the references; where not set, what their header says"
    ] = None
    references_contrast: Annotated[
        Literal["auto", "dark", "bright"], "how particles look in the references (RELION's class averages: bright)"
    ] = "auto"
    rotation_step_deg: Annotated[float, "angle between in-plane rotations of a reference, degrees"] = 10.0
    view_step_deg: Annotated[float, "angle between projections of a 3-D map, degrees"] = 30.0

    def __post_init__(self) -> None:
        for name in ("rotation_step_deg", "view_step_deg"):
            if not 1 <= getattr(self, name) <= 360:
                raise SettingsError(f"{name} is {getattr(self, name):g}, expected 1 to 360 degrees")
        pixel_size = self.references_pixel_size_angstrom
        if pixel_size is not None and not 0 < pixel_size < 1000:
            raise SettingsError(f"references_pixel_size_angstrom is {pixel_size:g}, expected Å per pixel, above 0")

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates with a score above `CANDIDATE_FLOOR`; `class_id` is the reference, counted from 0."""
        del survey  # the references say all that is needed
        references = self._references()
        warnings = []
        if references.pixel_size_angstrom and micrograph.pixel_size_angstrom:
            magnification = (
                references.pixel_size_angstrom / micrograph.pixel_size_angstrom
            )  # stored px per reference px
        else:
            magnification = 1.0
            warnings.append(
                "the pixel size of the micrograph or of the references is unknown; both were taken as equal "
                "(set --pixel-size and --references-pixel-size)"
            )
        diameter_px = self._diameter_px(references, micrograph, magnification)
        working, scale = resample(micrograph.pixels, factor=min(WORKING_DIAMETER_PX / diameter_px, 1.0))
        working_diameter_px = diameter_px * scale.factor
        working = normalize_locally(working, diameter_px=working_diameter_px)
        best, bright, reference = self._best_correlations(
            working, references, factor=magnification * scale.factor, radius_px=working_diameter_px / 2
        )
        spread = chance_spread(bright, limits=SPREAD_LIMITS)
        xy_px, score = find_peaks(best / spread, min_score=CANDIDATE_FLOOR)
        column, row = np.rint(xy_px).astype(int).T
        return Picks.of_candidates(
            micrograph,
            scale.to_stored_xy(xy_px),
            score,
            diameter_px,
            class_id=reference[row, column],
            maps={"correlation": np.maximum(best, 0)},
            warnings=tuple(warnings),
        )

    def _references(self) -> _References:
        if self.references is None:
            raise SettingsError(
                "picker template needs references; give --references with an MRC stack of 2-D images (.mrcs) or a map"
            )
        path = self.references.expanduser()
        settings = (self.references_pixel_size_angstrom, self.references_contrast, self.view_step_deg)
        return self._models.get(_read_references, [path], path, *settings)

    def _diameter_px(self, references: _References, micrograph: Micrograph, magnification: float) -> float:
        if self.diameter is not None:
            diameter_px = self.diameter.middle_px(micrograph.pixel_size_angstrom)
        else:
            diameter_px = references.diameter_px * magnification
        if diameter_px < SMALLEST_DIAMETER_PX:
            raise SettingsError(
                f"{micrograph.name}: the particle diameter is {diameter_px:.3g} px, expected "
                f"{SMALLEST_DIAMETER_PX:g} px or more; "
                "check --diameter and the pixel sizes of micrographs and references"
            )
        return diameter_px

    def _best_correlations(
        self, working: NDArray[np.float32], references: _References, *, factor: float, radius_px: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """(h, w) each: highest correlation over references and angles, the same of inverted ones, best reference."""
        reach_px = int(np.ceil(WINDOW_RADII * radius_px))
        offset = np.arange(-reach_px, reach_px + 1)
        window = np.hypot(offset[:, None], offset) <= WINDOW_RADII * radius_px
        templates = rotated_templates(
            references.images, factor=factor, reach_px=reach_px, step_deg=self.rotation_step_deg
        )
        n_angles = angle_count(self.rotation_step_deg)
        best = np.full(working.shape, -1.0, np.float32)
        bright = best.copy()
        reference = np.zeros(working.shape, np.int32)
        for i, correlation in enumerate(normalized_correlation(working, templates, window=window)):
            is_better = correlation > best
            best[is_better] = correlation[is_better]
            reference[is_better] = i // n_angles
            np.maximum(bright, -correlation, out=bright)
        return best, bright, reference


@dataclass(frozen=True, eq=False)
class _References:
    """What a references file holds, ready to be resampled.

    Parameters
    ----------
    images : (n, s, s) float32, background 0, particles dark and centred at pixel s // 2
    pixel_size_angstrom : None where neither setting nor header says
    diameter_px : measured, in pixels of the references
    """

    images: NDArray[np.float32]
    pixel_size_angstrom: float | None
    diameter_px: float


def _read_references(path: Path, pixel_size_angstrom: float | None, contrast: str, view_step_deg: float) -> _References:
    """Read a stack of images, or project a map, and find out how large and how dark the particles on them are."""
    is_map = path.suffix.lower() != ".mrcs" and probe_mrc(path).kind == "volume"
    if is_map:
        from cryopick.io.structures.volume import read_volume
        from cryopick.processing.projection import project

        volume = read_volume(path, voxel_size_angstrom=pixel_size_angstrom)
        images = project(volume, euler_to_matrix(view_directions(view_step_deg)))
        pixel_size_angstrom = volume.voxel_size_angstrom
    else:
        images, header_pixel_size_angstrom = read_mrc_stack(path)
        pixel_size_angstrom = pixel_size_angstrom or header_pixel_size_angstrom
    if images.shape[1] != images.shape[2]:
        raise SettingsError(f"{path}: references are {images.shape[2]} x {images.shape[1]} px, expected square images")
    if not np.isfinite(images).all():
        raise SettingsError(f"{path}: references hold NaN or infinite pixels; write them again")
    images = subtract_rim(images)
    images = images[np.ptp(images, axis=(1, 2)) > 0]  # RELION writes empty classes as blank images
    diameter_px = estimate_diameter_px(images) if len(images) else 0.0
    if diameter_px == 0:
        raise SettingsError(f"{path}: no reference shows a particle, all images are blank or noise to their rim")
    if contrast == "bright" or (contrast == "auto" and is_bright(images)):
        images = -images
    return _References(images=images, pixel_size_angstrom=pixel_size_angstrom, diameter_px=diameter_px)
