"""Dark discs of one diameter, by the Laplacian of a Gaussian: as short as a picker that keeps all promises can be."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from scipy.ndimage import gaussian_laplace, maximum_filter

from cryopick import Length, Micrograph, Picks
from cryopick.errors import SettingsError
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import Survey


@register_picker("laplacian")
@dataclass(frozen=True, kw_only=True)
class LaplacianPicker:
    """Finds dark discs of one diameter (T. Lindeberg, Int. J. Computer Vision 30 (1998) 79-116)."""

    name: ClassVar[str]
    score_meaning: ClassVar[str] = "response of a Laplacian of a Gaussian, in its own robust spreads; 0 to about 10"
    default_threshold: ClassVar[float] = 3.0

    diameter: Annotated[Length | None, "particle diameter"] = None
    min_score: Annotated[float, "candidates below it are not even kept"] = 2.0

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:  # noqa: ARG002  # measures nothing on a run
        """All candidates with a score of `min_score` or better; particles are dark."""
        if self.diameter is None:
            raise SettingsError("picker laplacian needs the particle diameter; give --diameter, for example 180A")
        diameter_px = self.diameter.middle_px(micrograph.pixel_size_angstrom)
        is_known = np.isfinite(micrograph.pixels)
        if not is_known.any():
            return Picks.none_on(micrograph)
        pixels = np.where(is_known, micrograph.pixels, np.median(micrograph.pixels[is_known])).astype(np.float64)
        sigma_px = diameter_px / 2 / 2**0.5  # the scale at which a disc of this radius answers most strongly
        response = gaussian_laplace(pixels, sigma_px)
        spread = 1.4826 * np.median(np.abs(response - np.median(response)))  # particles do not widen it
        if spread <= 1e-9 * np.abs(pixels).max():  # one grey value everywhere: what is left is rounding
            return Picks.none_on(micrograph)
        score = response / spread
        is_peak = (score == maximum_filter(score, 2 * int(diameter_px / 4) + 1)) & (score >= self.min_score)
        y, x = np.nonzero(is_peak)
        return Picks.of_candidates(micrograph, np.column_stack([x, y]), score[y, x].astype(np.float32), diameter_px)
