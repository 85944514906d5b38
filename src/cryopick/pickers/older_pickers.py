"""Pickers of other packages that were written for cryopick 0.1, before there was a `Survey`: they work as they are.

Such a picker prepared itself for a run: it gave back itself with more settings filled in. These are kept as text in the
survey, and filled in again before it picks.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopick.geometry.units import Length
from cryopick.pickers.survey import Survey
from cryopick.settings import as_plain, convert_settings
from cryopick.types import Micrograph, Picks

SENTENCES = ("measured", "found")
"""Settings in which pickers of version 0.1 said what they had learnt."""
_MARK, _MEMORY = "_prepares_as_in_0_1", "_prepared_by_cryopick"


def adapt_older_picker(cls: type[Any]) -> list[str]:
    """Give a picker class of version 0.1 the methods of now; returns which old ones it had, nothing for one of now."""
    adapted = []
    adapters: dict[str, Callable[[Any], Any]] = {
        "pick": _pick,
        "choose_threshold": _choose_threshold,
        "run_probabilities": _run_probabilities,
    }
    for name, adapter in adapters.items():
        method = getattr(cls, name, None)
        if method is not None and not _takes_survey(method):
            setattr(cls, name, adapter(method))
            adapted.append(f"{name} without a survey")
    for old, new, adapter in (("prepare", "survey", _survey), ("prepare_in", "survey_in", _survey_in)):
        if hasattr(cls, old) and not hasattr(cls, new):
            setattr(cls, new, adapter(getattr(cls, old)))
            setattr(cls, _MARK, True)
            adapted.append(old)
    return adapted


def is_older(cls: type[Any]) -> bool:
    """Whether a picker class prepares itself as in version 0.1."""
    return bool(getattr(cls, _MARK, False))


def survey_of_prepared(cls: type[Any], prepared: Mapping[str, Any]) -> Survey:
    """What a picker of version 0.1 filled into its settings, as a survey; the settings as plain values."""
    values = convert_settings(cls, prepared, section=f"picker {cls.name}")
    diameter = values.get("diameter")
    return Survey(
        particle_size=diameter if isinstance(diameter, Length) else None,
        prepared_settings=json.dumps(dict(prepared)),
        contrast_doubt=values.get("contrast_doubt"),
        sentence=next((str(values[name]) for name in SENTENCES if values.get(name)), ""),
    )


def _takes_survey(method: Callable[..., Any]) -> bool:
    """Whether a method takes a second value besides `self`."""
    parameters = signature(method, follow_wrapped=False).parameters.values()
    positional = [
        each for each in parameters if each.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    ]
    return len(positional) > 2 or any(each.kind is Parameter.VAR_POSITIONAL for each in parameters)


def _learnt(picker: Any, prepared: Any) -> Survey:
    before = as_plain(picker)
    learnt = {name: value for name, value in as_plain(prepared).items() if before.get(name) != value}
    return survey_of_prepared(type(picker), learnt)


def _prepared(picker: Any, survey: Survey | None) -> Any:
    """The picker with what it learnt filled in: the same one for every micrograph, as it may hold a loaded model."""
    if survey is None or survey.prepared_settings is None:
        return picker
    memory = getattr(picker, "__dict__", {})
    if memory.get(_MEMORY, ("",))[0] != survey.prepared_settings:
        learnt = convert_settings(type(picker), json.loads(survey.prepared_settings), section=f"picker {picker.name}")
        memory[_MEMORY] = (survey.prepared_settings, replace(picker, **learnt))
    return memory[_MEMORY][1]


def _pick(pick: Callable[..., Picks]) -> Callable[..., Picks]:
    @functools.wraps(pick)
    def adapted(self: Any, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        return pick(_prepared(self, survey), micrograph)

    return adapted


def _choose_threshold(choose: Callable[..., float]) -> Callable[..., float]:
    @functools.wraps(choose)
    def adapted(self: Any, scores: NDArray[np.float32], survey: Survey, **target: Any) -> float:
        return choose(_prepared(self, survey), scores, **target)

    return adapted


def _run_probabilities(probabilities: Callable[..., NDArray[np.float64]]) -> Callable[..., NDArray[np.float64]]:
    @functools.wraps(probabilities)
    def adapted(self: Any, scores: NDArray[np.float32], survey: Survey) -> NDArray[np.float64]:
        return probabilities(_prepared(self, survey), scores)

    return adapted


def _survey(prepare: Callable[..., Any]) -> Callable[..., Survey]:
    @functools.wraps(prepare)
    def adapted(self: Any, micrographs: Sequence[Micrograph]) -> Survey:
        return _learnt(self, prepare(self, micrographs))

    return adapted


def _survey_in(prepare_in: Callable[..., Any]) -> Callable[..., Survey]:
    @functools.wraps(prepare_in)
    def adapted(self: Any, folder: Path, micrographs: Sequence[Micrograph]) -> Survey:
        return _learnt(self, prepare_in(self, folder, micrographs))

    return adapted
