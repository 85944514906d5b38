"""`supercryopicker`: super-pixels and k-means, for particles of any outline. Nothing to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.deepcryopicker.clustering_picker import ClusteringPicker
from cryopick.pickers.deepcryopicker.objects import Found, WorkingImage, clean_mask, find_irregular, super_pixel_mask
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.pickers.registry import register_picker

CANDIDATE_FLOOR = 0.05


@register_picker("supercryopicker")
@dataclass(frozen=True, kw_only=True)
class SuperCryoPicker(ClusteringPicker):
    """Unsupervised picking of irregular particles by super-pixels (A. Al-Azzawi et al., Genes 10, 2019, 666).

    Super-pixels (SLIC) are clustered by their mean (k-means); objects of the darkest cluster that are about as large
    as a particle's dark part are particles. Areas follow from the diameter, which is measured when it is not given;
    the published program drops a fixed share of the smallest objects and keeps every large one.
    """

    name: ClassVar[str]
    k: ClassVar[int] = 5
    score_meaning: ClassVar[str] = "covered share of the particle's disc less that of its surroundings, 0 to 1"
    default_threshold: ClassVar[float] = 0.15

    clusters: Annotated[
        int | None, "how many of the five clusters, the darkest first, count as particle; else 1, or 2 for rings"
    ] = None

    def __post_init__(self) -> None:
        if self.clusters is not None:
            self.refuse_clusters(self.clusters)

    def find(self, image: WorkingImage, size: ParticleSize) -> tuple[Found, NDArray[np.bool_]]:
        # a super-pixel on a thin rim takes in some of its surroundings, so rings are in the two darkest clusters
        clusters = self.clusters or (2 if size.is_hollow else 1)
        darkest, nearness = super_pixel_mask(image, size, clusters=clusters, k=self.k)
        mask = clean_mask(darkest, size)
        return find_irregular(mask, nearness, size, min_score=CANDIDATE_FLOOR), mask
