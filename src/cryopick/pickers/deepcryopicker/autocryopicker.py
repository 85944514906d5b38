"""`autocryopicker`: intensity clusters, circles for round views, Feret diameters for square ones. Nothing to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.deepcryopicker.clustering_picker import ClusteringPicker
from cryopick.pickers.deepcryopicker.objects import (
    CIRCLE_FLOOR,
    Found,
    WorkingImage,
    clean_mask,
    distinct_objects,
    find_round,
    find_round_at_levels,
    find_square,
    find_square_at_levels,
    intensity_mask,
    joined,
)
from cryopick.pickers.deepcryopicker.published import AUTOCRYOPICKER
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.pickers.registry import register_picker


@register_picker("autocryopicker")
@dataclass(frozen=True, kw_only=True)
class AutoCryoPicker(ClusteringPicker):
    """Unsupervised picking of round and square views by shape (A. Al-Azzawi et al., BMC Bioinformatics 20, 2019, 326).

    The darkest intensity cluster is cleaned; a circular Hough transform finds round views in it, Feret diameters find
    square ones. Every size follows from the particle diameter, which is measured when it is not given; the published
    radii, areas and boxes were set by hand per data set.
    """

    name: ClassVar[str]
    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = AUTOCRYOPICKER
    has_calibrated_scores: ClassVar[bool] = False
    k: ClassVar[int] = 4
    score_meaning: ClassVar[str] = "share of the circle that the particle's outline covers, about 0 to 1"
    default_threshold: ClassVar[float] = 0.10

    clustering: Annotated[
        Literal["lloyd", "thresholds"], "lloyd: as the paper describes; thresholds: fixed ones, as the program does"
    ] = "lloyd"
    clusters: Annotated[int, "how many of the four clusters, the darkest first, count as particle"] = 1
    min_support: Annotated[float, "smallest share of a circle's outline that makes it a candidate, 0 to 1"] = (
        CIRCLE_FLOOR
    )

    def __post_init__(self) -> None:
        self.refuse_clusters(self.clusters)
        if not 0 < self.min_support < 1:
            raise SettingsError(f"{self.name}: min_support is {self.min_support}, expected more than 0 and less than 1")

    def find(self, image: WorkingImage, size: ParticleSize) -> tuple[Found, NDArray[np.bool_]]:
        mask = clean_mask(intensity_mask(image, clustering=self.clustering, clusters=self.clusters, k=self.k), size)
        circles = find_round(mask, size, min_support=self.min_support)
        if self.preprocessing == "published":
            return joined(find_square(mask, size), circles), mask
        squares = find_square(mask, size)
        if size.is_hollow:
            squares = joined(squares, find_square_at_levels(image, size))
            circles = joined(circles, find_round_at_levels(image, size, min_support=self.min_support))
        return distinct_objects([squares, circles]), mask
