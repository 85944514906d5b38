"""`autocryopicker`: intensity clusters, circles for round views, Feret diameters for square ones. Nothing to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.pickers.clustered_objects import (
    clean_mask,
    find_round,
    find_square,
    intensity_mask,
    joined,
    known_size,
    no_picks,
    to_picks,
    working_image,
)
from cryopick.pickers.registry import register_picker
from cryopick.types import Micrograph, Picks

K = 4


@register_picker("autocryopicker")
@dataclass(frozen=True, kw_only=True)
class AutoCryoPicker:
    """Unsupervised picking of round and square views by shape (A. Al-Azzawi et al., BMC Bioinformatics 20, 2019, 326).

    The darkest intensity cluster is cleaned; a circular Hough transform finds round views in it, Feret diameters find
    square ones. Every size follows from the particle diameter, which is measured when it is not given; the published
    radii, areas and boxes were set by hand per data set.
    """

    name: ClassVar[str]
    score_meaning: ClassVar[str] = "share of the circle that the particle's outline covers, about 0 to 1"
    default_threshold: ClassVar[float] = 0.10

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    preprocessing: Annotated[
        Literal["corrected", "published"], "corrected: background removed, working size; published: the MATLAB chain"
    ] = "corrected"
    clustering: Annotated[
        Literal["lloyd", "thresholds"], "lloyd: as the paper describes; thresholds: fixed ones, as the program does"
    ] = "lloyd"
    clusters: Annotated[int, "how many of the four clusters, the darkest first, count as particle"] = 1

    body: Annotated[float | None, "diameter of the dark part over that of the particle; measured by the run"] = None

    def __post_init__(self) -> None:
        check_choices(self.name, self.preprocessing, self.clustering, clusters=self.clusters, k=K)

    def prepare(self, micrographs: Sequence[Micrograph]) -> Self:
        """The same picker with the diameter and the dark body of these micrographs' particles."""
        size = known_size(micrographs, self.diameter, self.body)
        return self if size is None else replace(self, diameter=size.diameter, body=size.body)

    def pick(self, micrograph: Micrograph) -> Picks:
        """Circles and squares, best first; `class_id` 1 is a top view (round), 2 a side view (square)."""
        size = known_size([micrograph], self.diameter, self.body)
        if size is None:
            return no_picks(micrograph)
        diameter_px = size.diameter.middle_px(micrograph.pixel_size_angstrom)
        image = working_image(micrograph, diameter_px=diameter_px, preprocessing=self.preprocessing)
        if image is None:
            return no_picks(micrograph)
        mask = clean_mask(intensity_mask(image, clustering=self.clustering, clusters=self.clusters, k=K), size)
        found = joined(find_square(mask, size), find_round(mask, size))
        return to_picks(found, micrograph, image.scale, diameter_px, maps={"cluster": mask.astype(np.float32)})


def check_choices(name: str, preprocessing: str, clustering: str, *, clusters: int, k: int) -> None:
    """Raise `SettingsError` for a setting that the clustering pickers do not know."""
    if preprocessing not in ("corrected", "published"):
        raise SettingsError(f"{name}: preprocessing is {preprocessing!r}, expected corrected or published")
    if clustering not in ("lloyd", "thresholds"):
        raise SettingsError(f"{name}: clustering is {clustering!r}, expected lloyd or thresholds")
    if not 1 <= clusters < k:
        raise SettingsError(f"{name}: clusters is {clusters}, expected 1 to {k - 1} of the {k} clusters")
