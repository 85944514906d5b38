"""`cryoemmae`: clusters in the latent space of a masked autoencoder; learns without any label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import SettingsError
from cryopick.geometry.selection import merged_best_first, stand_apart
from cryopick.geometry.units import Length
from cryopick.inference.computing import RunsNetworks
from cryopick.inference.models import HoldsModels
from cryopick.io.weights import open_checkpoint
from cryopick.pickers.configurations import Configuration, ConfigurationName
from cryopick.pickers.cryoemmae.centres import AREA_SHARE, DISC_RADII, LARGEST_RADIUS, disc_responses, find_centres
from cryopick.pickers.cryoemmae.clusters import Clusters, evenly, evidence_of, refine, smooth_map
from cryopick.pickers.cryoemmae.latent import (
    Encoder,
    LatentMap,
    Prepared,
    Preprocessing,
    prepare_image,
    preprocessing_named,
)
from cryopick.pickers.cryoemmae.probe import Probe, describe
from cryopick.pickers.cryoemmae.published_chain import (
    FIRST_COUNT,
    PublishedChain,
    Rules,
    particle_of_files,
)
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.published_weights import files_of, read_published
from cryopick.pickers.registry import register_picker
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, Survey, holding_with_general, survey_of_size
from cryopick.processing.probability import Calibration, threshold_for_f1
from cryopick.types import Micrograph, Picks

CUT_FACTOR = 0.5
"""Of the cut with the highest expected F1; this and `minimum_threshold` suit the simulated suite best."""
RESPONSES = 2 * len(DISC_RADII)
"""Of a candidate, by the training set's clusters and by the refined ones; see `Analysis`."""
SAME_PARTICLE_DIAMETERS = 0.4
"""Picks of two species closer than this part of the larger diameter are one particle; the likelier one stays."""


@dataclass(frozen=True, eq=False)
class LatentModel:
    """A trained encoder, the training set's clusters, and what a candidate's vectors are worth.

    Parameters
    ----------
    centres : (k, c) of the training set's clusters
    particle : which of them is the particle; None where only a reference can tell (`read_published`)
    probe : None for weights of the published kind, whose candidates are worth their size
    preprocessing : that the weights were trained on
    """

    encoder: Encoder
    centres: NDArray[np.float32]
    particle: int | None
    probe: Probe | None
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


def analyse(encoder: Encoder, clusters: Clusters, prepared: Prepared, *, cluster_count: int) -> Analysis:
    """Encode a pre-processed micrograph, refine the clusters on it, and find candidates.

    Parameters
    ----------
    cluster_count : of the last refinement; below `FIRST_COUNT` the training set's clusters are used as they are
    """
    latent = encoder.dense(prepared.image)
    smooth = smooth_map(latent.vectors)
    latent = replace(latent, vectors=smooth)
    stages = refine(smooth, clusters, counts=range(FIRST_COUNT, cluster_count + 1))
    diameter = prepared.diameter_px / latent.step_px
    evidence = evidence_of(smooth, stages)
    first = disc_responses(evidence_of(smooth, stages[:1]), diameter=diameter)
    last = disc_responses(evidence, diameter=diameter)
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

    read = partial(read_published, picker="cryoemmae")
    with open_checkpoint(weights or "cryoemmae", picker="cryoemmae", published=read) as checkpoint:
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
        centres = np.asarray(found["centres"], np.float32)
        if centres.ndim != 2:
            raise ValueError(f"centres of shape {centres.shape}, expected one row for each cluster")
        particle = None if found["particle"] is None else int(found["particle"])
        if particle is not None and not 0 <= particle < len(centres):
            raise ValueError(f"particle {particle} of {len(centres)} clusters")
        probe = None
        if found.get("probe") is not None:
            probe = Probe.from_json(found["probe"], width=centres.shape[1], responses=RESPONSES)
        return LatentModel(encoder, centres, particle, probe, preprocessing_named(card.preprocessing["mode"]))


def _configuration(rules: Rules, about: str, departs: tuple[str, ...]) -> Configuration:
    return Configuration(
        about=f"{about} Needs --diameter, and weights of the published kind: the authors' file (cryopick "
        f"import-weights), or those of cryopick train cryoemmae --as {rules}.",
        settings={
            "preprocessing": rules,
            "postprocessing": rules,
            "clusters": 5,
            "area": AREA_SHARE,
            "reference_prepared": True,
            "as_found": True,
        },
        departs=departs,
    )


CONFIGURATIONS: Mapping[ConfigurationName, Configuration] = {
    "article": _configuration(
        "article",
        "As the article words it: local mean and deviation under the particle's disc (eq. 1 and 2), Wiener filter, "
        "CLAHE as the guide of the guided filter, 1024 x 1024; k-means with 3, 4 and 5 clusters on all vectors of the "
        "micrograph, each handed on by the greatest overlap (Algorithm 2); 4 % of the area.",
        (
            "numbers that the article does not give are the program's: Wiener kernel and regulariser, the guided "
            "filter's window (one pixel wider, so that it has a middle) and 0.1, 30 thresholds, neighbours within half "
            "a diameter, the border of two thirds of one",
            f"components count as too wide from {LARGEST_RADIUS:g} radii on; the article gives no number",
            "the authors' weights saw the program's pictures, which are blurred and shifted; the article's are sharper",
            "where no cell is the particle's any more, clusters stay as they were; the article does not say",
        ),
    ),
    "program": _configuration(
        "program",
        "As the authors' program runs, faults included: statistics in the corners outside the particle's disc, a blur "
        "4 px off, two boxes of 20 px, rows in reverse; means over an even window; k-means with 3, 4 and 5 clusters on "
        "all vectors, handed on in the middle of the map and by purity; 4 % of the area; whole pixels of 512 x 512, "
        "which stay off by the shift of its filters.",
        (
            "every micrograph is treated as an MRC file; the program neither stretches nor reverses pictures",
            "micrographs of odd sizes, of other MRC modes, and with places of no variance work, where the program "
            "fails",
            "a particle diameter is asked for; the program takes 200 px where none is given",
        ),
    ),
}


@register_picker("cryoemmae")
@dataclass(frozen=True, kw_only=True)
class CryoEmmaePicker(HoldsModels, RunsNetworks, ChoosesByExpectedF1):
    """Our network, after the idea of A. Zamanos et al. (2025): a probe trained on simulation ranks its latent clusters.

    An autoencoder that fills in hidden patches of micrographs gives every place a latent vector, and k-means on the
    vectors of a micrograph finds the cluster of the particles. Both learn without a label: `cryopick train cryoemmae
    --data micrographs/` from your own micrographs. What makes the picks good is not the clusters, however: candidates
    are ranked by a probe that was trained on labelled simulation, and by a discriminant fitted on each micrograph. See
    the ablation in docs/cryoemmae.md. The published system is `--as article` or `--as program`.
    """

    name: ClassVar[str]
    fills_machine: ClassVar[bool] = True
    score_meaning: ClassVar[str] = (
        "probability that the pick is right, 0 to 1, from its place in latent space, calibrated on simulation; as "
        "published the size of the component, pixels of 512 x 512, not calibrated"
    )
    configurations: ClassVar[Mapping[ConfigurationName, Configuration]] = CONFIGURATIONS

    default_threshold: ClassVar[float] = 0.25
    minimum_threshold: ClassVar[float] = 0.1
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS | {"is_empty"}

    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    species: Annotated[
        tuple[Length, ...], "diameters of several species in the micrographs, smallest first; the class column tells"
    ] = ()
    weights: Annotated[Path | None, "checkpoint to use instead of the shipped one"] = None
    clusters: Annotated[int, "clusters of the last refinement per micrograph; 0: those of the training set alone"] = (
        FIRST_COUNT
    )
    preprocessing: Annotated[
        Literal["weights", "article", "program"],
        "what the encoder sees: as the weights were trained; or, for weights trained on 1024 x 1024, as the article or "
        "the program has it",
    ] = "weights"
    postprocessing: Annotated[
        Literal["corrected", "article", "program", "published"],
        "corrected: overlapping crops, peaks, probabilities; article, program: components of 512 x 512 as either has "
        "them; published is the older name of program",
    ] = "corrected"
    area: Annotated[float, "share of the micrograph that is particle, for the published threshold"] = AREA_SHARE
    reference: Annotated[Path | None, "micrograph whose mask says which cluster is the particle (published way)"] = None
    reference_mask: Annotated[Path | None, "mask of the reference: not 0 on particles"] = None
    reference_prepared: Annotated[
        bool, "the reference is a picture of 1024 x 1024 that is pre-processed already, as the authors' is"
    ] = False
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
        if self.postprocessing == "published":
            object.__setattr__(self, "postprocessing", "program")
        if self.rules is not None and self.species:
            raise SettingsError(f"postprocessing {self.rules} knows one particle; give --diameter instead of species")
        if self.rules is None and self.reference_prepared:
            raise SettingsError("reference_prepared goes with postprocessing article or program")

    @property
    def rules(self) -> Rules | None:
        """The published rules that are in force; None where they are ours."""
        if self.postprocessing == "corrected":
            return None
        return "article" if self.postprocessing == "article" else "program"

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities: as published they are sizes."""
        return self.rules is None

    @property
    def calibration(self) -> Calibration:
        """Of the scores, on simulation."""
        return self._probe().calibration

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """A little below the cut with the highest expected F1, or the lowest that reaches the precision.

        The crops that the scores are calibrated on are harder than most micrographs, so that the scores are too low
        there. As published, all that is found is kept.
        """
        if self.rules is not None:
            if target_precision is not None:
                raise SettingsError(f"postprocessing {self.rules} has no probabilities to reach a precision with")
            return float(scores.min()) if len(scores) else 0.0
        if target_precision is not None or len(scores) == 0:
            return super().choose_threshold(scores, survey, target_precision=target_precision)
        return self.cut_at(scores, survey, factor=CUT_FACTOR, smallest=self.minimum_threshold)

    def cut_at(self, scores: NDArray[np.float32], survey: Survey, *, factor: float, smallest: float) -> float:
        """The score at `factor` times the cut with the highest expected F1, a probability of at least `smallest`."""
        probability = self.run_probabilities(scores, survey)
        kept = scores[probability >= max(factor * threshold_for_f1(probability), smallest)]
        return float(kept.min()) if len(kept) else 1.0

    @property
    def needs_survey(self) -> bool:
        """Whether a run looks at micrographs first: as published only to refuse that the diameter is missing."""
        return self.rules is None or self.diameter is None

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """On which of them the `general` network sees particles, of the given diameter or of any.

        As published nothing is looked at before, so that all are as good.
        """
        if self.rules is not None:
            return list(range(len(micrographs)))
        from cryopick.heatmap.model import kept_model

        return holding_with_general(
            kept_model(self._models, device=self.device), micrographs, diameter=(self.species or (self.diameter,))[0]
        )

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """Measure the diameter on a few micrographs of the run, with `general`, or see whether the given one fits.

        Of several species no size is measured or doubted, and as published nothing is looked at before.

        Raises
        ------
        SettingsError
            If the particle diameter is not given as published.
        """
        if self.rules is not None:
            if self.diameter is None:
                raise SettingsError(
                    f"postprocessing {self.rules} takes the particle diameter as known, and measures none: give "
                    "--diameter 180A or 108px"
                )
            return Survey(particle_size=self.diameter)
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
            self._pick_size(micrograph, size, number)
            for number, size in enumerate(sizes, start=1 if self.species else 0)
        ]
        if not found:  # nothing particle-like at any size
            return Picks.none_on(micrograph)
        return found[0] if len(found) == 1 else _likelier(found)

    def _pick_size(self, micrograph: Micrograph, diameter: Length, class_id: int) -> Picks:
        model = self._model()
        diameter_px = diameter.middle_px(micrograph.pixel_size_angstrom)
        prepared = prepare_image(micrograph.pixels, diameter_px=diameter_px, preprocessing=self._preprocessing(model))
        if prepared is None:
            return Picks.none_on(micrograph)
        clusters = self._start(diameter)
        if self.rules is not None:
            chain = PublishedChain(rules=self.rules, clusters=self.clusters, area=self.area)
            return chain.picks(micrograph, model.encoder, clusters, prepared, diameter_px=diameter_px)
        probe = self._probe()
        found = analyse(model.encoder, clusters, prepared, cluster_count=self.clusters)
        score = probe.adapted(found.features)
        maps = latent_maps(found)
        return Picks.of_candidates(micrograph, found.stored_xy(), score, diameter_px, class_id=class_id, maps=maps)

    def shipped_weights(self) -> Mapping[str, str]:
        """Of the encoder, and of `general`, through which a run is looked at."""
        used = {"weights": "cryoemmae"} if self.weights is None else {}
        return {**used, "general": "general"} if self.rules is None else used

    def _preprocessing(self, model: LatentModel) -> Preprocessing:
        """That of the weights, or the one given; a picture that the weights know nothing of is refused."""
        chosen: Preprocessing = model.preprocessing if self.preprocessing == "weights" else self.preprocessing
        if "corrected" == model.preprocessing != chosen or (self.rules is not None and chosen == "corrected"):
            raise SettingsError(
                "these weights know micrographs shrunk until a particle is 20 px wide, not the pictures of 1024 x 1024 "
                f"that {self.rules or chosen} works on; give --weights of the published kind: the authors' file, or "
                "those of cryopick train cryoemmae --as article (or program)"
            )
        return chosen

    def _start(self, diameter: Length) -> Clusters:
        """The training set's clusters, the particle's among them chosen by the reference where there is one."""
        model = self._model()
        if self.reference is None or self.reference_mask is None:
            if model.particle is None:
                raise SettingsError(
                    "these weights do not tell which cluster is the particle; give --reference and --reference-mask "
                    "(the authors' are input_example.png and target_example.png)"
                )
            return Clusters(model.centres, model.particle)
        files = (self.reference, self.reference_mask)
        is_dense = self.rules is None
        preprocessing = model.preprocessing if is_dense else self._preprocessing(model)
        particle = self._models.get(
            _particle_of_files,
            files,
            model,
            *files,
            is_dense=is_dense,
            diameter=diameter,
            preprocessing=None if self.reference_prepared else preprocessing,
        )
        return Clusters(model.centres, particle)

    def _probe(self) -> Probe:
        probe = self._model().probe
        if probe is None:
            raise SettingsError(
                "these weights have no probe that would tell what a candidate is worth: pick with --as article or --as "
                "program, or train weights with a probe: cryopick train cryoemmae"
            )
        return probe

    def _model(self) -> LatentModel:
        files = files_of(self.weights or "cryoemmae", picker="cryoemmae")
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


def _particle_of_files(model: LatentModel, reference: Path, mask: Path, *, is_dense: bool, **settings: Any) -> int:
    """The training set's cluster that is commonest inside the mask, in a map of the reference as ours, or published."""

    def vectors_of(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        encoder = model.encoder
        return smooth_map(encoder.dense(picture).vectors) if is_dense else encoder.tokens(picture).vectors

    return particle_of_files(vectors_of, model.centres, reference, mask, **settings)


def card_entry(clusters: Clusters, probe: Probe | None) -> dict[str, Any]:
    """What `load_model` reads of a card's post-processing."""
    return {
        "centres": [[float(f"{value:.6g}") for value in centre] for centre in clusters.centres],
        "particle": clusters.particle,
        "probe": None if probe is None else probe.to_json(),
    }
