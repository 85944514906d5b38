"""`autocryopicker`: intensity clusters, circles for round views, Feret diameters for square ones. Nothing to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.deepcryopicker.clustering_picker import ClusteringPicker
from cryopick.pickers.deepcryopicker.objects import (
    Found,
    WorkingImage,
    clean_mask,
    find_round,
    find_square,
    intensity_mask,
    joined,
)
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
    k: ClassVar[int] = 4
    score_meaning: ClassVar[str] = "share of the circle that the particle's outline covers, about 0 to 1"
    default_threshold: ClassVar[float] = 0.10

    clustering: Annotated[
        Literal["lloyd", "thresholds"], "lloyd: as the paper describes; thresholds: fixed ones, as the program does"
    ] = "lloyd"
    clusters: Annotated[int, "how many of the four clusters, the darkest first, count as particle"] = 1

    def __post_init__(self) -> None:
        self.refuse_clusters(self.clusters)

    def find(self, image: WorkingImage, size: ParticleSize) -> tuple[Found, NDArray[np.bool_]]:
        mask = clean_mask(intensity_mask(image, clustering=self.clustering, clusters=self.clusters, k=self.k), size)
        return joined(find_square(mask, size), find_round(mask, size)), mask
