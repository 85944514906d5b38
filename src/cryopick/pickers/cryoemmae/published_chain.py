"""From a micrograph's picture to its particles as the article has it, and as the released program does, faults
included."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.pickers.cryoemmae.centres import FRAME_PX, PublishedCentres, published_centres
from cryopick.pickers.cryoemmae.clusters import (
    Clusters,
    greatest_overlap,
    hand_over_as_released,
    refine_as_published,
    smooth_as_published,
)
from cryopick.pickers.cryoemmae.denoise import PICTURE_PX
from cryopick.pickers.cryoemmae.latent import Encoder, LatentMap, Prepared, Preprocessing, prepare_image

Rules = Literal["article", "program"]
FIRST_COUNT = 3
"""A micrograph's own clusters are so many at first; published to 5."""


@dataclass(frozen=True, eq=False)
class PublishedAnalysis:
    """What the published chain makes of one micrograph.

    Parameters
    ----------
    prepared : the picture that the encoder saw
    latent : its vectors, as they come
    clustered : (h, w, c) the vectors that were clustered: the program's means over windows
    stages : clusters from the training set's to the finest
    mask : (h, w) True on the cells of the particle's finest cluster
    centres : on the map of 512 x 512
    """

    prepared: Prepared
    latent: LatentMap
    clustered: NDArray[np.float32]
    stages: list[Clusters]
    mask: NDArray[np.bool_]
    centres: PublishedCentres
    rules: Rules

    @property
    def score(self) -> NDArray[np.float32]:
        """(n,) size of each component, pixels of 512 x 512: the program's weight."""
        return self.centres.weight.astype(np.float32)

    def stored_xy(self) -> NDArray[np.float64]:
        """(n, 2) centres in pixels of the micrograph as stored.

        The program rounds to whole pixels of 512 x 512 and takes these times the scale for coordinates, y counted back
        from the height where the picture is upside down: half a pixel of 512 and one row off, and the shift of its
        filters stays in.
        """
        if self.rules == "article":
            # pixels of 512 to those of 1024, both counted from the middle of the first one
            return self.prepared.to_stored_xy((self.centres.xy + 0.5) * PICTURE_PX / FRAME_PX - 0.5)
        height, width = self.prepared.shape_yx
        column, row = np.rint(self.centres.xy).T.reshape(2, -1)
        y = row * height / FRAME_PX
        return np.stack([column * width / FRAME_PX, height - y if self.prepared.is_upside_down else y], axis=1)


def analyse_as_published(
    encoder: Encoder,
    clusters: Clusters,
    prepared: Prepared,
    *,
    rules: Rules,
    cluster_count: int,
    area_share: float,
) -> PublishedAnalysis:
    """Encode a picture of 1024 x 1024, refine the clusters on all its vectors, and take the components as particles.

    Parameters
    ----------
    rules : article: vectors as they are, each cluster handed on by the greatest overlap, wide components dropped;
        program: means over windows of an even number of vectors, `hand_over_as_released`
    cluster_count : of the last refinement, published 5; below `FIRST_COUNT` the training set's clusters as they are
    area_share : of the threshold, published 0.04
    """
    latent = encoder.tokens(prepared.image)
    diameter_512 = prepared.diameter_px * FRAME_PX / prepared.image.shape[0]
    is_program = rules == "program"
    vectors = smooth_as_published(latent.vectors, diameter_512=diameter_512) if is_program else latent.vectors
    stages = refine_as_published(
        vectors,
        clusters,
        counts=range(FIRST_COUNT, cluster_count + 1),
        rule=hand_over_as_released if is_program else greatest_overlap,
    )
    last = stages[-1]
    mask = (last.labels(vectors.reshape(-1, vectors.shape[2])) == last.particle).reshape(vectors.shape[:2])
    centres = published_centres(mask, diameter_512=diameter_512, area_share=area_share, drops_wide=not is_program)
    return PublishedAnalysis(prepared, latent, vectors, stages, mask, centres, rules)


def particle_by_reference(
    encoder: Encoder, centres: NDArray[np.float32], picture: NDArray[np.float32], mask: NDArray[np.bool_]
) -> int:
    """The training set's cluster that most cells inside the mask of a reference picture are of.

    Parameters
    ----------
    centres : (k, c) of the training set's clusters
    picture : (h, w) in [0, 1], pre-processed
    mask : any size, True on particles, as the picture lies

    Raises
    ------
    SettingsError
        If the mask marks nothing.
    """
    import cv2

    latent = encoder.tokens(picture)
    height, width = latent.vectors.shape[:2]
    inside = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    if not inside.any():
        raise SettingsError("the mask of the reference marks nothing; expected an image that is not 0 on particles")
    return int(np.bincount(Clusters(centres, 0).labels(latent.vectors[inside])).argmax())


def particle_of_files(
    encoder: Encoder,
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
        return particle_by_reference(encoder, centres, picture_in_unit(micrograph.pixels, name=str(reference)), inside)
    if diameter is None:
        raise SettingsError(f"{reference}: to pre-process it the particle diameter is needed; give --diameter")
    diameter_px = diameter.middle_px(micrograph.pixel_size_angstrom)
    prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=preprocessing)
    if prepared is None:
        raise SettingsError(f"{reference}: is blank or smaller than a particle of {diameter_px:.0f} px")
    inside = inside[::-1] if prepared.is_upside_down else inside
    return particle_by_reference(encoder, centres, prepared.image, inside)


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
