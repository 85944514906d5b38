"""Settings, preparation and the way from a micrograph to picks that AutoCryoPicker and SuperCryoPicker share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.pickers.deepcryopicker.evidence import standing_out
from cryopick.pickers.deepcryopicker.objects import (
    SMALLEST_DIAMETER_PX,
    Found,
    WorkingImage,
    known_size,
    nothing_seen,
    to_picks,
    working_image,
)
from cryopick.pickers.deepcryopicker.size import ParticleSize
from cryopick.pickers.deepcryopicker.views import with_views
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, Survey
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.types import Micrograph, Picks


@dataclass(frozen=True, kw_only=True)
class ClusteringPicker:
    """A picker that finds objects in the mask of a micrograph's darkest clusters; says how in `find`."""

    name: ClassVar[str]
    default_threshold: ClassVar[float]
    k: ClassVar[int]
    """Number of clusters."""
    smallest_diameter_px: ClassVar[float] = SMALLEST_DIAMETER_PX
    enlarged_to_px: ClassVar[float] = NOMINAL_PARTICLE_PX
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    preprocessing: Annotated[
        Literal["corrected", "published"], "corrected: background removed, working size; published: the MATLAB chain"
    ] = "corrected"
    body: Annotated[
        float | None, "diameter of the dark part over that of the particle; measured on the run when not given"
    ] = None

    def refuse_clusters(self, clusters: int) -> None:
        """Raise `SettingsError` unless some, and not all, clusters count as particle."""
        if not 1 <= clusters < self.k:
            raise SettingsError(
                f"{self.name}: clusters is {clusters}, expected 1 to {self.k - 1} of the {self.k} clusters"
            )

    @property
    def is_published(self) -> bool:
        """Whether objects are those of the published method, all of them, without our views and negatives."""
        return self.preprocessing == "published"

    def find(self, image: WorkingImage, size: ParticleSize) -> tuple[Found, NDArray[np.bool_]]:
        """Objects in working pixels, and the cleaned mask that they were found in."""
        raise NotImplementedError

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """The diameter and the dark body of these micrographs' particles; a doubt where others are seen."""
        if not micrographs:
            return NOTHING_SEEN
        size = known_size(micrographs, self.diameter, self.body)
        if size is None:
            return Survey(is_empty=True, sentence=nothing_seen(len(micrographs)))
        return Survey(
            particle_size=size.diameter, dark_part=size.body, size_doubt=size.doubt or None, size_seen=size.seen
        )

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """Objects, best first; `class_id` is the view: 1 top, 2 side, 3 irregular; `maps` holds the mask."""
        seen = survey or NOTHING_SEEN
        if seen.is_empty:
            return Picks.none_on(micrograph)
        size = known_size([micrograph], seen.particle_size or self.diameter, seen.dark_part or self.body)
        if size is None:
            return Picks.none_on(micrograph)
        diameter_px = size.diameter.middle_px(micrograph.pixel_size_angstrom)
        image = working_image(micrograph, diameter_px=diameter_px, preprocessing=self.preprocessing)
        if image is None:
            return Picks.none_on(micrograph)
        found, mask = self.find(image, size)
        if not self.is_published:
            inverted = replace(image, pixels=-image.pixels)
            negatives, _ = self.find(inverted, size)
            found = standing_out(found, negatives, image.pixels, size, threshold=self.default_threshold)
            found = with_views(found, mask, image.pixels, size)
        return to_picks(found, micrograph, image.scale, diameter_px, maps={"cluster": mask.astype(np.float32)})
