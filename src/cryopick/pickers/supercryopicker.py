"""`supercryopicker`: super-pixels and k-means, for particles of any outline. Nothing to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np

from cryopick.geometry.units import Length
from cryopick.pickers.autocryopicker import check_choices
from cryopick.pickers.clustered_objects import (
    clean_mask,
    find_irregular,
    known_size,
    no_picks,
    super_pixel_mask,
    to_picks,
    working_image,
)
from cryopick.pickers.registry import register_picker
from cryopick.types import Micrograph, Picks

K = 5
CANDIDATE_FLOOR = 0.05


@register_picker("supercryopicker")
@dataclass(frozen=True, kw_only=True)
class SuperCryoPicker:
    """Unsupervised picking of irregular particles by super-pixels (A. Al-Azzawi et al., Genes 10, 2019, 666).

    Super-pixels (SLIC) are clustered by their mean (k-means); objects of the darkest cluster that are about as large
    as a particle's dark part are particles. Areas follow from the diameter, which is measured when it is not given;
    the published program drops a fixed share of the smallest objects and keeps every large one.
    """

    name: ClassVar[str]
    score_meaning: ClassVar[str] = "covered share of the particle's disc less that of its surroundings, 0 to 1"
    default_threshold: ClassVar[float] = 0.15

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    preprocessing: Annotated[
        Literal["corrected", "published"], "corrected: background removed, working size; published: the MATLAB chain"
    ] = "corrected"
    clusters: Annotated[
        int | None, "how many of the five clusters, the darkest first, count as particle; else 1, or 2 for rings"
    ] = None

    body: Annotated[float | None, "diameter of the dark part over that of the particle; measured by the run"] = None

    def __post_init__(self) -> None:
        check_choices(
            self.name, self.preprocessing, "lloyd", clusters=1 if self.clusters is None else self.clusters, k=K
        )

    def prepare(self, micrographs: Sequence[Micrograph]) -> Self:
        """The same picker with the diameter and the dark body of these micrographs' particles."""
        size = known_size(micrographs, self.diameter, self.body)
        return self if size is None else replace(self, diameter=size.diameter, body=size.body)

    def pick(self, micrograph: Micrograph) -> Picks:
        """Objects, best first; `class_id` is 3, irregular, for all."""
        size = known_size([micrograph], self.diameter, self.body)
        if size is None:
            return no_picks(micrograph)
        diameter_px = size.diameter.middle_px(micrograph.pixel_size_angstrom)
        image = working_image(micrograph, diameter_px=diameter_px, preprocessing=self.preprocessing)
        if image is None:
            return no_picks(micrograph)
        # a super-pixel on a thin rim takes in some of its surroundings, so rings are in the two darkest clusters
        clusters = self.clusters or (2 if size.is_hollow else 1)
        darkest, nearness = super_pixel_mask(image, size, clusters=clusters, k=K)
        mask = clean_mask(darkest, size)
        found = find_irregular(mask, nearness, size, min_score=CANDIDATE_FLOOR)
        return to_picks(found, micrograph, image.scale, diameter_px, maps={"cluster": mask.astype(np.float32)})
