"""`cryoemmae`: clusters in the latent space of a masked autoencoder; learns without any label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.selection import merged_best_first, stand_apart
from cryopick.geometry.units import Length
from cryopick.inference.models import HoldsModels
from cryopick.io.weights import files_of_weights, open_checkpoint
from cryopick.pickers.cryoemmae.centres import AREA_SHARE, FRAME_PX, disc_responses, find_centres, published_centres
from cryopick.pickers.cryoemmae.clusters import Clusters, evenly, evidence_of, refine, smooth_as_published, smooth_map
from cryopick.pickers.cryoemmae.latent import Encoder, LatentMap, Prepared, Preprocessing, prepare_image
from cryopick.pickers.cryoemmae.probe import Probe, describe
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, Survey, holding_with_general, survey_of_size
from cryopick.processing.probability import Calibration, threshold_for_f1
from cryopick.types import Micrograph, Picks

FIRST_COUNT = 3
"""The refinement starts with so many clusters."""
CUT_FACTOR = 0.5
"""Of the cut with the highest expected F1; this and `minimum_threshold` suit the simulated suite best."""
SAME_PARTICLE_DIAMETERS = 0.4
"""Picks of two species closer than this part of the larger diameter are one particle; the likelier one stays."""


@dataclass(frozen=True, eq=False)
class LatentModel:
    """A trained encoder, the training set's clusters, and what a candidate's vectors are worth."""

    encoder: Encoder
    clusters: Clusters
    probe: Probe
    preprocessing: Preprocessing


@dataclass(frozen=True, eq=False)
class Analysis:
    """What the network and the clusters make of one micrograph.

    Parameters
    ----------
    prepared : the image that the encoder saw
    latent : its vectors, smoothed
    stages : clusters from the training set's to the finest
    evidence : (h, w) in [0, 1], mean membership in the particle's cluster
    responses : (r, h, w) evidence of particles around each cell, see `disc_responses`: by the training set's clusters,
        then by the mean over all stages
    xy, diameter : candidates (n, 2) and the particle's diameter, cells
    """

    prepared: Prepared
    latent: LatentMap
    stages: list[Clusters]
    evidence: NDArray[np.float32]
    responses: NDArray[np.float32]
    xy: NDArray[np.float64]
    diameter: float

    @property
    def features(self) -> NDArray[np.float32]:
        """(n, f) of the candidates, see `describe`."""
        return describe(self.latent, self.responses, self.xy, diameter=self.diameter)

    def stored_xy(self) -> NDArray[np.float64]:
        """(n, 2) candidates in pixels of the micrograph as stored."""
        return self.prepared.to_stored_xy(self.latent.to_image_xy(self.xy))


def analyse(
    encoder: Encoder,
    clusters: Clusters,
    prepared: Prepared,
    *,
    cluster_count: int,
    is_published: bool = False,
    area_share: float = AREA_SHARE,
) -> Analysis:
    """Encode a pre-processed micrograph, refine the clusters on it, and find candidates.

    Parameters
    ----------
    cluster_count : of the last refinement; below `FIRST_COUNT` the training set's clusters are used as they are
    is_published : crops that do not overlap and the published rules for windows and centres; the image must be
        1024 x 1024
    area_share : of the published threshold
    """
    counts = range(FIRST_COUNT, cluster_count + 1)
    if is_published:
        latent = encoder.tokens(prepared.image)
        diameter_512 = prepared.diameter_px * FRAME_PX / prepared.image.shape[0]
        smooth = smooth_as_published(latent.vectors, diameter_512=diameter_512)
    else:
        latent = encoder.dense(prepared.image)
        smooth = smooth_map(latent.vectors)
        latent = replace(latent, vectors=smooth)
    stages = refine(smooth, clusters, counts=counts)
    diameter = prepared.diameter_px / latent.step_px
    evidence = evidence_of(smooth, stages)
    first = disc_responses(evidence_of(smooth, stages[:1]), diameter=diameter)
    last = disc_responses(evidence, diameter=diameter)
    if is_published:
        finest = stages[-1]
        mask = (finest.labels(smooth.reshape(-1, smooth.shape[2])) == finest.particle).reshape(smooth.shape[:2])
        found = published_centres(mask, diameter_512=diameter_512, area_share=area_share)
        # pixels of 512 to cells, both counted from the middle of the first one
        xy = (found.xy + 0.5) * mask.shape[0] / FRAME_PX - 0.5
    else:
        # the refinement loses some thin particles, and finds others that the training set's clusters miss
        both = [first] if len(stages) == 1 else [first, last]
        xy = np.concatenate([find_centres(responses, diameter=diameter) for responses in both])
    return Analysis(prepared, latent, stages, evidence, np.concatenate([first, last]), xy, diameter)


def load_model(weights: Path | None, *, device: str = "auto", precision: str = "auto") -> LatentModel:
    """The model of a checkpoint (None: the one shipped with the package).

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or of another picker.
    """
    from cryopick.pickers.cryoemmae.network import build_masked_autoencoder

    with open_checkpoint(weights or "cryoemmae", picker="cryoemmae") as checkpoint:
        card = checkpoint.card
        network = checkpoint.build(build_masked_autoencoder)
        encoder = Encoder.loaded(
            network,
            mean=card.preprocessing["mean"],
            std=card.preprocessing["std"],
            device=device,
            precision=precision,
        )
        found = card.postprocessing
        clusters = Clusters(np.asarray(found["centres"], np.float32), int(found["particle"]))
        mode: Preprocessing = "published" if card.preprocessing["mode"] == "published" else "corrected"
        return LatentModel(encoder, clusters, Probe.from_json(found["probe"]), mode)


@register_picker("cryoemmae")
@dataclass(frozen=True, kw_only=True)
class CryoEmmaePicker(HoldsModels, ChoosesByExpectedF1):
    """Clusters in a masked autoencoder's latent space, learnt without labels (A. Zamanos et al., Cell Rep. Meth. 2025).

    An autoencoder that fills in hidden patches of micrographs gives every place a latent vector; k-means on the
    vectors of a micrograph finds the cluster of the particles. `cryopick train cryoemmae --data micrographs/` learns
    from your own micrographs without a single label.
    """

    name: ClassVar[str]
    fills_machine: ClassVar[bool] = True
    score_meaning: ClassVar[str] = (
        "probability that the pick is right, 0 to 1, from its place in latent space, calibrated on simulation"
    )

    default_threshold: ClassVar[float] = 0.25
    minimum_threshold: ClassVar[float] = 0.1

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    species: Annotated[
        tuple[Length, ...], "diameters of several species in the micrographs, smallest first; the class column tells"
    ] = ()
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    clusters: Annotated[int, "clusters of the last refinement per micrograph; 0: those of the training set alone"] = (
        FIRST_COUNT
    )
    postprocessing: Annotated[
        Literal["corrected", "published"], "corrected: overlapping crops, peaks; published: components of 512 x 512"
    ] = "corrected"
    area: Annotated[float, "share of the micrograph that is particle, for the published threshold"] = AREA_SHARE
    reference: Annotated[Path | None, "micrograph whose mask says which cluster is the particle (published way)"] = None
    reference_mask: Annotated[Path | None, "mask of the reference: not 0 on particles"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "auto, float32 or bfloat16; auto takes bfloat16 where the hardware has it"] = "auto"

    def __post_init__(self) -> None:
        if self.clusters < 0 or 0 < self.clusters < FIRST_COUNT:
            raise SettingsError(f"clusters is {self.clusters}, expected 0, or {FIRST_COUNT} or more")
        if not 0 < self.area < 1:
            raise SettingsError(f"area is {self.area}, expected a share between 0 and 1")
        if (self.reference is None) != (self.reference_mask is None):
            raise SettingsError("reference and reference_mask belong together; give both or none")
        if self.species and self.diameter is not None:
            raise SettingsError("species and diameter both tell the size; give the diameters of all species alone")

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        return self._model().probe.calibration

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """A little below the cut with the highest expected F1, or the lowest that reaches the precision.

        The crops that the scores are calibrated on are harder than most micrographs, so that the scores are too low
        there.
        """
        if target_precision is not None or len(scores) == 0:
            return super().choose_threshold(scores, survey, target_precision=target_precision)
        return self.cut_at(scores, survey, factor=CUT_FACTOR, smallest=self.minimum_threshold)

    def cut_at(self, scores: NDArray[np.float32], survey: Survey, *, factor: float, smallest: float) -> float:
        """The score at `factor` times the cut with the highest expected F1, a probability of at least `smallest`."""
        probability = self.run_probabilities(scores, survey)
        kept = scores[probability >= max(factor * threshold_for_f1(probability), smallest)]
        return float(kept.min()) if len(kept) else 1.0

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """On which of them the `general` network sees particles, of the given diameter or of any."""
        from cryopick.heatmap.model import kept_model

        return holding_with_general(
            kept_model(self._models, device=self.device), micrographs, diameter=(self.species or (self.diameter,))[0]
        )

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure the diameter on a few micrographs of the run, with `general`, or see whether the given one fits.

        Of several species no size is measured or doubted.
        """
        from cryopick.heatmap.doubts import doubts_about_sample
        from cryopick.heatmap.model import kept_model

        if not micrographs:
            return NOTHING_SEEN
        general = kept_model(self._models, device=self.device)
        if self.species:
            doubts = doubts_about_sample(general, micrographs, given=None, measured=self.species[0])
            return NOTHING_SEEN.with_doubts(doubts)
        return survey_of_size(general, micrographs, diameter=self.diameter)

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates, best first; `maps` holds evidence, clusters and the first two components of the vectors."""
        if survey is None:  # where there is no run to warn, what is given is not doubted
            is_given = self.diameter is not None or bool(self.species)
            survey = Survey(particle_size=self.diameter) if is_given else self.survey([micrograph])
        seen = survey
        sizes = self.species or (() if seen.particle_size is None else (seen.particle_size,))
        found = [
            self._pick_size(micrograph, size.middle_px(micrograph.pixel_size_angstrom), number)
            for number, size in enumerate(sizes, start=1 if self.species else 0)
        ]
        if not found:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        return found[0] if len(found) == 1 else _likelier(found)

    def _pick_size(self, micrograph: Micrograph, diameter_px: float, class_id: int) -> Picks:
        model = self._model()
        prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=model.preprocessing)
        if prepared is None:
            return Picks.none_on(micrograph)
        is_published = self.postprocessing == "published"
        if is_published and model.preprocessing != "published":
            raise SettingsError(
                "postprocessing published needs weights that were trained on published pre-processing (1024 x 1024): "
                "cryopick train cryoemmae --preset paper"
            )
        found = analyse(
            model.encoder,
            self._start(diameter_px),
            prepared,
            cluster_count=self.clusters,
            is_published=is_published,
            area_share=self.area,
        )
        score = model.probe.adapted(found.features)
        maps = latent_maps(found)
        return Picks.of_candidates(micrograph, found.stored_xy(), score, diameter_px, class_id=class_id, maps=maps)

    def _start(self, diameter_px: float) -> Clusters:
        """The training set's clusters, the particle's among them chosen by the reference where there is one."""
        if self.reference is None or self.reference_mask is None:
            return self._model().clusters
        files = (self.reference, self.reference_mask)
        return self._models.get(_clusters_of_reference, files, self._model(), *files, diameter_px=diameter_px)

    def _model(self) -> LatentModel:
        files = files_of_weights(self.weights or "cryoemmae")
        return self._models.get(load_model, files, self.weights, device=self.device, precision=self.precision)


def latent_maps(found: Analysis) -> dict[str, NDArray[np.float32]]:
    """Pictures for the report: evidence, the finest clusters with the particle's brightest, two principal components.

    Components are turned so that particles are bright.
    """
    vectors, last = found.latent.flat, found.stages[-1]
    shape = found.evidence.shape
    labels = last.labels(vectors).reshape(shape)
    # the farther a cluster from the particle's the darker
    distance = np.linalg.norm(last.centres - last.centres[last.particle], axis=1)
    grey = 1 - np.argsort(np.argsort(distance)) / max(1, len(distance) - 1)
    sample = evenly(vectors, 8192)
    middle = sample.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(sample - middle, rowvar=False))
    maps = {"particle evidence": found.evidence, "latent clusters": grey[labels].astype(np.float32)}
    for number, axis in enumerate(axes.T[::-1][:2], start=1):
        component = ((vectors - middle) @ axis.astype(np.float32)).reshape(shape)
        sign = 1.0 if float(np.mean((component - component.mean()) * found.evidence)) >= 0 else -1.0
        maps[f"latent component {number}"] = (sign * component).astype(np.float32)
    return maps


def _likelier(found: Sequence[Picks]) -> Picks:
    """Picks of several species as one list, best first; of those at one place the likeliest."""
    merged = merged_best_first(found, like=max(found, key=len))
    reach_px, species = SAME_PARTICLE_DIAMETERS * merged.diameter_px, merged.class_id

    def limit_px(better: NDArray[np.intp], worse: NDArray[np.intp]) -> NDArray[np.floating]:
        return np.where(species[better] == species[worse], 0, np.maximum(reach_px[better], reach_px[worse]))

    return merged.take(stand_apart(merged.xy_px, limit_px, reach_px=float(reach_px.max(initial=0.0))))


def _clusters_of_reference(model: LatentModel, reference: Path, mask: Path, *, diameter_px: float) -> Clusters:
    """The training set's clusters; the particle's is the commonest inside the mask."""
    import cv2

    from cryopick.io.images.micrographs import read_micrograph

    prepared = prepare_image(
        read_micrograph(reference).pixels, diameter_px=diameter_px, preprocessing=model.preprocessing
    )
    if prepared is None:
        raise SettingsError(f"{reference}: is blank or smaller than a particle of {diameter_px:.0f} px")
    latent = model.encoder.dense(prepared.image)
    height, width = latent.vectors.shape[:2]
    inside = read_micrograph(mask).pixels != 0
    inside = cv2.resize(inside.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
    if not inside.any():
        raise SettingsError(f"{mask}: marks nothing; expected an image that is not 0 on particles")
    labels = model.clusters.labels(smooth_map(latent.vectors)[inside])
    return replace(model.clusters, particle=int(np.bincount(labels).argmax()))


def card_entry(clusters: Clusters, probe: Probe) -> dict[str, Any]:
    """What `load_model` reads of a card's post-processing."""
    return {
        "centres": [[float(f"{value:.6g}") for value in centre] for centre in clusters.centres],
        "particle": clusters.particle,
        "probe": probe.to_json(),
    }
