"""`supercryopicker`: super-pixels and k-means, for particles of any outline. Nothing to train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.deepcryopicker.clustering_picker import ClusteringPicker
from cryopick.pickers.deepcryopicker.objects import (
    Found,
    WorkingImage,
    clean_mask,
    find_components,
    find_irregular,
    super_pixel_mask,
)
from cryopick.pickers.deepcryopicker.published import SUPERCRYOPICKER
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
    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = SUPERCRYOPICKER
    has_calibrated_scores: ClassVar[bool] = False
    needs_extra: ClassVar[str] = "masks"
    k: ClassVar[int] = 5
    score_meaning: ClassVar[str] = "covered share of the particle's disc less that of its surroundings, 0 to 1"
    default_threshold: ClassVar[float] = 0.15

    clusters: Annotated[
        int | None, "how many of the five clusters, the darkest first, count as particle; else 1, or 2 for rings"
    ] = None
    objects: Annotated[
        Literal["discs", "components", "components-of-rarest"],
        "discs: covered places of the dark part's size; components: connected objects, as the paper has them; "
        "components-of-rarest: of the cluster of fewest pixels, as the program does",
    ] = "discs"

    def __post_init__(self) -> None:
        if self.clusters is not None:
            self.refuse_clusters(self.clusters)

    @property
    def is_published(self) -> bool:
        """As for the other picker; connected objects of any kind are the published ones too."""
        return super().is_published or self.objects != "discs"

    def find(self, image: WorkingImage, size: ParticleSize) -> tuple[Found, NDArray[np.bool_]]:
        # a super-pixel on a thin rim takes in some of its surroundings, so rings are in the two darkest clusters
        if self.objects != "discs":
            is_rarest = self.objects == "components-of-rarest"
            mask, _ = super_pixel_mask(image, size, clusters=self.clusters or 1, k=self.k, is_rarest=is_rarest)
            return find_components(mask), mask
        clusters = self.clusters or (2 if size.is_hollow else 1)
        darkest, nearness = super_pixel_mask(image, size, clusters=clusters, k=self.k)
        mask = clean_mask(darkest, size)
        return find_irregular(mask, nearness, size, min_score=CANDIDATE_FLOOR), mask
