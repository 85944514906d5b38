"""From a micrograph's picture to its particles as the article has it, and as the released program does, faults
included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.pickers.cryoemmae.centres import FRAME_PX, published_centres
from cryopick.pickers.cryoemmae.clusters import (
    Clusters,
    greatest_overlap,
    hand_over_as_released,
    refine_as_published,
    smooth_as_published,
)
from cryopick.pickers.cryoemmae.denoise import PICTURE_PX
from cryopick.pickers.cryoemmae.latent import Encoder, Prepared, Preprocessing, prepare_image
from cryopick.types import Micrograph, Picks

Rules = Literal["article", "program"]
FIRST_COUNT = 3
"""A micrograph's own clusters are so many at first; published to 5."""


@dataclass(frozen=True, kw_only=True)
class PublishedChain:
    """Encodes a picture of 1024 x 1024, refines the clusters on all its vectors, takes the components as particles.

    Parameters
    ----------
    rules : article: vectors as they are, each cluster handed on by the greatest overlap, wide components dropped;
        program: means over windows of an even number of vectors, `hand_over_as_released`
    clusters : of the last refinement, published 5; below `FIRST_COUNT` the training set's clusters as they are
    area : share of the threshold, published 0.04
    """

    rules: Rules
    clusters: int
    area: float

    def picks(
        self, micrograph: Micrograph, encoder: Encoder, start: Clusters, prepared: Prepared, *, diameter_px: float
    ) -> Picks:
        """All particles of a micrograph; their score is the size of the component, pixels of 512 x 512.

        `maps` holds the finest clusters and the cells of the particle's, as the micrograph is stored.

        Parameters
        ----------
        start : clusters of the training set
        prepared : what the encoder sees of the micrograph
        diameter_px : that the particles are given, stored pixels
        """
        is_program, diameter_512 = self.rules == "program", prepared.diameter_px * FRAME_PX / prepared.image.shape[0]
        vectors = encoder.tokens(prepared.image).vectors
        if is_program:
            vectors = smooth_as_published(vectors, diameter_512=diameter_512)
        *_, last = refine_as_published(
            vectors,
            start,
            counts=range(FIRST_COUNT, self.clusters + 1),
            rule=hand_over_as_released if is_program else greatest_overlap,
        )
        labels = last.labels(vectors.reshape(-1, vectors.shape[2])).reshape(vectors.shape[:2])
        mask, grey = labels == last.particle, labels / max(1, len(last.centres) - 1)
        xy, weight = published_centres(mask, diameter_512=diameter_512, area_share=self.area, drops_wide=not is_program)
        maps = {"particle evidence": mask.astype(np.float32), "latent clusters": grey.astype(np.float32)}
        if prepared.is_upside_down:
            maps = {name: np.ascontiguousarray(one[::-1]) for name, one in maps.items()}
        places = self.stored_xy(xy, prepared)
        return Picks.of_candidates(micrograph, places, weight.astype(np.float32), diameter_px, maps=maps)

    def stored_xy(self, xy: NDArray[np.float64], prepared: Prepared) -> NDArray[np.float64]:
        """(n, 2) centres on the map of 512 x 512 in pixels of the micrograph as stored.

        The program rounds to whole pixels of 512 x 512 and takes these times the scale for coordinates, y counted back
        from the height where the picture is upside down: half a pixel of 512 and one row off, and the shift of its
        filters stays in.
        """
        if self.rules == "article":
            # pixels of 512 to those of 1024, both counted from the middle of the first one
            return prepared.to_stored_xy((xy + 0.5) * PICTURE_PX / FRAME_PX - 0.5)
        height, width = prepared.shape_yx
        column, row = np.rint(xy).T.reshape(2, -1)
        y = row * height / FRAME_PX
        return np.stack([column * width / FRAME_PX, height - y if prepared.is_upside_down else y], axis=1)


def particle_by_reference(
    vectors: NDArray[np.float32], centres: NDArray[np.float32], mask: NDArray[np.bool_], *, where: Path
) -> int:
    """The training set's cluster that most cells inside the mask of a reference picture are of.

    Parameters
    ----------
    vectors : (h, w, c) of the picture
    centres : (k, c) of the training set's clusters
    mask : any size, True on particles, as the picture lies
    where : file of the mask, for errors

    Raises
    ------
    SettingsError
        If the mask marks nothing.
    """
    import cv2

    height, width = vectors.shape[:2]
    inside = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    if not inside.any():
        raise SettingsError(f"{where}: marks nothing; expected an image that is not 0 on particles")
    return int(np.bincount(Clusters(centres, 0).labels(vectors[inside])).argmax())


def particle_of_files(
    vectors_of: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    centres: NDArray[np.float32],
    reference: Path,
    mask: Path,
    *,
    diameter: Length | None,
    preprocessing: Preprocessing | None,
) -> int:
    """As `particle_by_reference`, of a reference and its mask on disk.

    Parameters
    ----------
    vectors_of : (h, w) picture in [0, 1], pre-processed, to (i, j, c) vectors
    diameter : of a particle of the reference; needed with `preprocessing`
    preprocessing : of the reference; None where it is a picture that is pre-processed already

    Raises
    ------
    SettingsError
        If the reference is blank, too small or no such picture, or the mask marks nothing.
    """
    from cryopick.io.images.micrographs import read_micrograph

    micrograph, inside = read_micrograph(reference), read_micrograph(mask).pixels != 0
    if preprocessing is None:
        picture = picture_in_unit(micrograph.pixels, name=str(reference))
        return particle_by_reference(vectors_of(picture), centres, inside, where=mask)
    if diameter is None:
        raise SettingsError(f"{reference}: to pre-process it the particle diameter is needed; give --diameter")
    diameter_px = diameter.middle_px(micrograph.pixel_size_angstrom)
    prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=preprocessing)
    if prepared is None:
        raise SettingsError(f"{reference}: is blank or smaller than a particle of {diameter_px:.0f} px")
    inside = inside[::-1] if prepared.is_upside_down else inside
    return particle_by_reference(vectors_of(prepared.image), centres, inside, where=mask)


def picture_in_unit(pixels: NDArray[np.float32], *, name: str) -> NDArray[np.float32]:
    """(1024, 1024) in [0, 1] of a reference picture that is pre-processed already, 8 bit.

    Raises
    ------
    SettingsError
        If it is of another size, or no 8-bit image.
    """
    if pixels.shape != (PICTURE_PX, PICTURE_PX) or pixels.min() < 0 or pixels.max() > 255:
        height, width = pixels.shape
        raise SettingsError(
            f"{name}: a pre-processed reference is an 8-bit picture of {PICTURE_PX} x {PICTURE_PX}, this is "
            f"{width} x {height} with values {pixels.min():g} to {pixels.max():g}; for a micrograph as stored give "
            "--no-reference-prepared"
        )
    return (pixels / 255).astype(np.float32)
