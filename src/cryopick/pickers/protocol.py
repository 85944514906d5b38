"""What a picker is: settings in a frozen dataclass, and one method, `pick`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.units import Length
from cryopick.pickers.survey import Survey
from cryopick.processing.belief import Beliefs, OpenCandidates
from cryopick.types import Micrograph, Picks


@runtime_checkable
class Picker(Protocol):
    """Finds particles in one micrograph.

    A picker is a frozen, keyword-only dataclass; its fields are its settings and become command-line options, config
    entries and documentation. It never opens a micrograph, starts a worker, draws, or knows a data set by name.
    Particles are dark in every micrograph that a picker is given; the workflow inverts negative stain before.
    """

    name: ClassVar[str]
    """Set by `register_picker`."""
    score_meaning: ClassVar[str]
    """One line: what the score is and its range."""
    default_threshold: ClassVar[float]
    """Candidates with a score below it are rejected unless the user or `choose_threshold` says otherwise."""
    diameter: Length | None
    """Particle diameter; a picker that cannot do without raises `SettingsError` in `pick`."""

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """All candidates, well below the threshold too, with scores, sub-pixel centres and diameters; no `reason` set.

        An empty, blank, tiny or NaN-filled micrograph gives an empty result, never an error. Repeatable.

        Parameters
        ----------
        survey : what the run measured; None where there is no run, and the micrograph speaks for itself
        """
        ...


@runtime_checkable
class Surveys(Protocol):
    """A picker that looks at a few micrographs of a run first, to measure what it is not given."""

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """What it sees on them; of no micrographs, nothing."""
        ...


@runtime_checkable
class ChoosesSample(Protocol):
    """A picker that surveys micrographs which hold something, where the run has such.

    It is asked about micrographs spread over the run, again with each further one, and is shown those that it names.
    """

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """Which of these show more than noise and dirt explain, in order, by a cheap look at each."""
        ...


@runtime_checkable
class SurveysInFolder(Protocol):
    """A picker whose survey makes files, such as a trained model, that belong to the run and are kept with it."""

    sample_size: ClassVar[int]
    """Micrographs that it wants to see."""

    def survey_in(self, folder: Path, micrographs: Sequence[Micrograph]) -> Survey:
        """As `survey`, with files written into `folder`, which need not exist yet.

        What it writes there with `exhibits.write_exhibits`, such as pictures of training examples, the report shows.
        """
        ...


@runtime_checkable
class ChoosesThreshold(Protocol):
    """A picker that chooses the threshold from all scores of a run."""

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """The threshold for these candidate scores of a whole run, after all other selection."""
        ...


@runtime_checkable
class JudgesMicrographs(Protocol):
    """A picker that tells, from all candidates of a run, on which micrographs what looks likely is believed."""

    def beliefs(self, candidates: Sequence[OpenCandidates]) -> Beliefs:
        """One entry per micrograph; candidates as they are left by all selection rules but the threshold."""
        ...


@runtime_checkable
class GivesProbabilities(Protocol):
    """A picker whose score is the probability that the pick is right; runs then tell what to expect of the cut."""

    def run_probabilities(self, scores: NDArray[np.float32], survey: Survey) -> NDArray[np.float64]:
        """The probabilities of all candidates of a whole run, given that they are all; in the order of `scores`."""
        ...


@runtime_checkable
class NamesShippedWeights(Protocol):
    """A picker that picks with weights of the package where none are given."""

    def shipped_weights(self) -> Mapping[str, str]:
        """By what they are for, the names of those in use (`io.weights.find_weights` finds the files)."""
        ...


def run_level_fields(picker: Any) -> frozenset[str]:
    """The fields of a `Survey` that change threshold, tables and texts of a run, but no candidate of a micrograph.

    A picker names them in a class variable `run_level_fields`. All others are fields that it looks by: where one of
    them changes, its micrographs are picked again. Of a picker that says nothing every field is one.
    """
    return frozenset(getattr(picker, "run_level_fields", ()))


def gives_probabilities(picker: Any) -> bool:
    """Whether the scores of a picker, set as it is, are calibrated probabilities that a pick is right.

    Scores from 0 to 1 are not, merely for that. A picker whose settings make the difference says so in a property
    `has_calibrated_scores`.
    """
    return isinstance(picker, GivesProbabilities) and bool(getattr(picker, "has_calibrated_scores", True))


def surveys(picker: Any) -> bool:
    """Whether a picker, set as it is, looks at a few micrographs of a run first.

    A picker whose settings make the difference says so in a property `needs_survey`.
    """
    return isinstance(picker, Surveys) and bool(getattr(picker, "needs_survey", True))
