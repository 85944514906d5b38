"""What a freshly trained encoder means: its clusters, the particle's among them, and what a candidate is worth.

Truth comes from simulated micrographs alone, encoded by the same network; micrographs that it was trained on are never
asked for labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import TrainingError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.metrics.detection import rank_outcomes
from cryopick.pickers.cryoemmae.clusters import Clusters, evenly, fit_centres, particle_cluster, smooth_map
from cryopick.pickers.cryoemmae.latent import Encoder, LatentMap, Prepared, Preprocessing, prepare_image
from cryopick.pickers.cryoemmae.picker import Analysis, analyse
from cryopick.pickers.cryoemmae.probe import Probe, fit_probe_weights
from cryopick.pickers.cryoemmae.published_chain import FIRST_COUNT
from cryopick.processing.scale import NOMINAL_PARTICLE_PX
from cryopick.simulation.crops import Crop, CropGenerator, CropRanges
from cryopick.simulation.recipe import LayoutRanges, Recipe
from cryopick.training.counted_sizes import counted_sizes
from cryopick.training.crop_bank import SimulatedCrops
from cryopick.training.judging import (
    NO_PARTICLES,
    TOLERANCE_DIAMETERS,
    calibrated,
    detection_scores,
    typical_diameter_px,
)
from cryopick.types import Picks

RIGHT_DIAMETERS, WRONG_DIAMETERS = 0.16, 0.32
"""The probe learns from candidates nearer to a particle's middle than the first, as particles, and farther than the
second, as others; so that of candidates on one particle the middle one scores highest."""
CLUSTERED_VECTORS = 60_000
STARTS = 8
JUDGED_STEP = 5
"""Every so many cells of simulated images say which cluster is the particle's."""
INNER_PX = 192
"""Three by three crops of the encoder: simulated crops of another side would waste part of a fourth."""
SEARCHED_CROPS = 1024
MICROGRAPH_PX, MICROGRAPH_PARTICLE_PX = 2048, (70.0, 110.0)
"""The published chain has its lengths in pixels of a whole micrograph, so its references are such."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A simulated image as the encoder sees it, and its truth.

    Parameters
    ----------
    prepared : the image
    xy_px : (n, 2) particles to be picked, pixels of the image before it was prepared
    silhouettes : (h, w) bool, those of all particles, in those pixels too
    tolerance_px : largest distance of a right pick, in those pixels too
    """

    prepared: Prepared
    xy_px: NDArray[np.float64]
    silhouettes: NDArray[np.bool_]
    tolerance_px: float


def references(crops: Iterator[Crop], *, nominal_px: float, preprocessing: Preprocessing) -> Iterator[Reference]:
    """The crops whose particles are clearly to be picked or clearly of another size."""
    for crop in crops:
        size_px = typical_diameter_px(crop.diameter_px, nominal_px=nominal_px)
        is_picked, is_undecided = counted_sizes(size_px, nominal_px=nominal_px)
        if is_undecided:
            continue
        prepared = prepare_image(crop.image, diameter_px=nominal_px, preprocessing=preprocessing)
        if prepared is None:
            continue
        silhouettes = (crop.instances > 0) & ~crop.junk
        if is_picked:
            yield Reference(prepared, crop.xy_px, silhouettes, TOLERANCE_DIAMETERS * size_px)
        else:
            yield Reference(prepared, NO_PARTICLES, np.zeros_like(silhouettes), TOLERANCE_DIAMETERS * nominal_px)


def simulated_references(*, preprocessing: Preprocessing, seed: int, count: int, shared: int) -> list[Reference]:
    """`count` crops, or for the published chain an eighth as many micrographs.

    Parameters
    ----------
    seed : of the simulation; 1 shares the crops that networks are trained on
    shared : crops of this seed that are kept on disk
    """
    if preprocessing == "corrected":
        source = SimulatedCrops(seed=seed, count=shared)
        crops = (inner_part(source.crop(index), INNER_PX) for index in range(count))
        return list(references(crops, nominal_px=NOMINAL_PARTICLE_PX, preprocessing=preprocessing))
    found: list[Reference] = []
    micrographs = simulated_micrographs(seed)
    for index in range(max(2, count // 8)):
        crop = micrographs.crop(index)
        nominal_px = typical_diameter_px(crop.diameter_px, nominal_px=MICROGRAPH_PARTICLE_PX[0])
        found += references(iter([crop]), nominal_px=nominal_px, preprocessing=preprocessing)
    return found


def hollow_references(*, seed: int, first: int, count: int, shared: int) -> list[Reference]:
    """Crops whose particles are brighter in the middle than at the rim: rare, and the hardest for clusters of darkness.

    Parameters
    ----------
    seed, shared : as in `simulated_references`
    first : crop to search from
    count : of crops to find, within `SEARCHED_CROPS` crops
    """
    source = SimulatedCrops(seed=seed, count=shared)
    crops = (inner_part(source.crop(index), INNER_PX) for index in range(first, first + SEARCHED_CROPS))
    found = (
        one for one in references(crops, nominal_px=NOMINAL_PARTICLE_PX, preprocessing="corrected") if is_hollow(one)
    )
    return list(islice(found, count))


def is_hollow(one: Reference) -> bool:
    """True where the mean of the particles is darker at the rim than in the middle; False for fewer than three."""
    if len(one.xy_px) < 3:
        return False
    diameter_px = one.tolerance_px / TOLERANCE_DIAMETERS
    angle = np.arange(16) * np.pi / 8
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    image = one.prepared.image
    limit = np.array(image.shape[::-1]) - 1

    def mean_at(radius_px: float) -> float:
        places = (one.xy_px[:, None] + radius_px * circle).reshape(-1, 2)
        column, row = np.clip(np.rint(places), 0, limit).astype(np.intp).T
        return float(image[row, column].mean())

    middle = 0.5 * (mean_at(0.0) + mean_at(0.1 * diameter_px))
    return middle > mean_at(0.38 * diameter_px)


def inner_part(crop: Crop, side_px: int) -> Crop:
    """The middle of a crop."""
    first = (crop.image.shape[0] - side_px) // 2
    if first <= 0:
        return crop
    middle = np.s_[first : first + side_px, first : first + side_px]
    xy_px = crop.xy_px - first
    is_in = ((xy_px >= -0.5) & (xy_px < side_px - 0.5)).all(axis=1)
    return replace(
        crop,
        image=np.ascontiguousarray(crop.image[middle]),
        xy_px=xy_px[is_in],
        diameter_px=crop.diameter_px[is_in],
        snr=crop.snr[is_in],
        visibility=crop.visibility[is_in],
        instances=crop.instances[middle],
        junk=crop.junk[middle],
    )


def simulated_micrographs(seed: int) -> CropGenerator:
    """Whole simulated micrographs for the published chain."""
    return CropGenerator(
        Recipe(layout=LayoutRanges()),
        seed,
        crop_px=MICROGRAPH_PX,
        particle_px_range=MICROGRAPH_PARTICLE_PX,
        ranges=CropRanges(diameter_error=(1.0, 1.0), empty_probability=0.0, junk_only_probability=0.0),
    )


# --------------------------------------------------------------------------------------------------------- clusters


def fit_clusters(
    encoder: Encoder, windows: NDArray[np.float32], truth: Sequence[Reference], *, count: int, seed: int = 0
) -> Clusters:
    """k-means on the vectors of training windows; the particle's cluster is the one that simulated particles fall into.

    Where k-means ends depends on where it starts. Of `STARTS` starts the one is kept whose particle cluster tells
    simulated particles from the rest best.

    Parameters
    ----------
    windows : (n, s, s) of training images in [0, 1]
    truth : simulated images
    count : of clusters, published 4

    Raises
    ------
    TrainingError
        If the simulated images hold no particle, or nothing else.
    """
    codes = encoder.encode(encoder.standardized(windows))
    vectors = evenly(codes.reshape(-1, codes.shape[2]), CLUSTERED_VECTORS)
    cells, inside = [], []
    for one in truth:
        latent = encoder.dense(one.prepared.image)
        cells.append(smooth_map(latent.vectors).reshape(-1, latent.vectors.shape[2])[::JUDGED_STEP])
        inside.append(cells_of(one, latent).ravel()[::JUDGED_STEP])
    known, is_particle = np.concatenate(cells), np.concatenate(inside)
    found: list[tuple[float, Clusters]] = []
    for start in range(STARTS):
        clusters = Clusters(fit_centres(vectors, count=count, seed=seed + start), 0)
        try:
            particle, margin = particle_cluster(clusters.labels(known), is_particle, count=len(clusters.centres))
        except ValueError as error:
            raise TrainingError(f"the simulated references do not tell particles from the rest: {error}") from error
        found.append((margin, Clusters(clusters.centres, particle)))
    return max(found, key=lambda one: one[0])[1]


def fit_published_centres(
    encoder: Encoder, pictures: Iterable[NDArray[np.float32]], *, count: int, seed: int = 0
) -> NDArray[np.float32]:
    """(k, c) centres of k-means on all vectors of the training pictures, as they come, from one start: as published.

    A picture of 1024 x 1024 has 65,536 vectors: 50 MB at a length of 192, so that 180 take 9 GB.
    """
    vectors = np.concatenate([encoder.tokens(picture).flat for picture in pictures])
    return fit_centres(vectors, count=count, seed=seed)


def particle_of_simulation(encoder: Encoder, centres: NDArray[np.float32], truth: Sequence[Reference]) -> int:
    """Which of the training set's clusters simulated particles fall into more than all else does.

    Raises
    ------
    TrainingError
        If the simulated pictures hold no particle, or nothing else.
    """
    labels, inside = [], []
    for one in truth:
        latent = encoder.tokens(one.prepared.image)
        labels.append(Clusters(centres, 0).labels(latent.flat))
        inside.append(cells_of(one, latent).ravel())
    try:
        return particle_cluster(np.concatenate(labels), np.concatenate(inside), count=len(centres))[0]
    except ValueError as error:
        raise TrainingError(f"the simulated references do not tell particles from the rest: {error}") from error


def cells_of(one: Reference, latent: LatentMap) -> NDArray[np.bool_]:
    """(h, w) cells of a map that lie on a particle."""
    rows, columns = latent.vectors.shape[:2]
    place = [latent.to_image_xy(np.arange(size, dtype=np.float64)) for size in (rows, columns)]
    column, row = (
        np.rint(one.prepared.to_stored_xy(np.stack([values, values], axis=1))[:, axis]).astype(np.intp)
        for axis, values in ((0, place[1]), (1, place[0]))
    )
    height, width = one.silhouettes.shape
    return one.silhouettes[np.ix_(np.clip(row, 0, height - 1), np.clip(column, 0, width - 1))]


# ------------------------------------------------------------------------------------------------------------ probe


def kinds_of(one: Reference, found: Analysis) -> NDArray[np.int64]:
    """(n,) 1 for candidates near the middle of a particle, 0 for those clearly elsewhere, -1 between."""
    from scipy.spatial import cKDTree

    if len(one.xy_px) == 0 or len(found.xy) == 0:
        return np.zeros(len(found.xy), np.int64)
    distance, _ = cKDTree(one.xy_px).query(found.stored_xy())
    diameter_px = one.tolerance_px / TOLERANCE_DIAMETERS
    between = np.where(distance < WRONG_DIAMETERS * diameter_px, -1, 0)
    return np.where(distance < RIGHT_DIAMETERS * diameter_px, 1, between).astype(np.int64)


def fit_probe(
    encoder: Encoder,
    clusters: Clusters,
    *,
    to_fit: Sequence[Reference],
    hollow: Sequence[Reference] = (),
    to_calibrate: Sequence[Reference],
) -> tuple[Probe, dict[str, float]]:
    """What tells right candidates from wrong ones, calibrated on other crops; and how well it does there.

    The candidates of `hollow` references count twice.

    Raises
    ------
    TrainingError
        If too few candidates are right, or too few wrong.
    """
    features, kinds = [], []
    for number, one in enumerate([*to_fit, *hollow]):
        found = analyse(encoder, clusters, one.prepared, cluster_count=FIRST_COUNT)
        times = 1 if number < len(to_fit) else 2
        features += times * [found.features]
        kinds += times * [kinds_of(one, found)]
    kind = np.concatenate(kinds)
    try:
        probe = fit_probe_weights(
            np.concatenate(features)[kind >= 0], kind[kind >= 0] == 1, width=encoder.network.width
        )
    except ValueError as error:
        raise TrainingError(f"the simulated references cannot judge the candidates: {error}") from error
    outcomes = []
    for one in to_calibrate:
        found = analyse(encoder, clusters, one.prepared, cluster_count=FIRST_COUNT)
        score = probe.raw(found.features)
        xy_px, score = _thinned(found.stored_xy(), score, diameter_px=one.tolerance_px / TOLERANCE_DIAMETERS)
        outcomes.append(rank_outcomes(xy_px, score, one.xy_px, NO_PARTICLES, max_distance_px=one.tolerance_px))
    found_scores = detection_scores(outcomes)
    scores = {"simulated_average_precision": found_scores["score"], "simulated_best_f1": found_scores["best_f1"]}
    return replace(probe, calibration=calibrated(outcomes)), scores


def _thinned(
    xy_px: NDArray[np.float64], score: NDArray[np.float64], *, diameter_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Candidates as a run selects them before its threshold."""
    picks = Picks(xy_px=xy_px, score=score.astype(np.float32), diameter_px=np.full(len(score), diameter_px))
    kept = select(picks, SelectionSettings(), threshold=0.0).is_kept
    return xy_px[kept], score[kept]
