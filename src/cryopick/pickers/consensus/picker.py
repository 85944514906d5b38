"""`consensus`: several pickers look at each micrograph, and what they agree on is picked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cryopick.errors import InputError, SettingsError
from cryopick.geometry.cliques import ABSENT, Groups
from cryopick.geometry.selection import BELOW_THRESHOLD, NOT_BELIEVED
from cryopick.geometry.units import Length
from cryopick.inference.models import HoldsModels
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.coordinates.names import without_extension
from cryopick.io.weights import find_weights
from cryopick.pickers.consensus.stacking import PICKER, Stacking, features, joined, least_centring_errors, load_stacking
from cryopick.pickers.expected_f1 import ChoosesByExpectedF1
from cryopick.pickers.protocol import gives_probabilities, surveys
from cryopick.pickers.registry import make_picker, picker_class, register_picker
from cryopick.pickers.survey import NOTHING_SEEN, TOLD_FIELDS, Survey
from cryopick.processing.belief import LIKELY
from cryopick.processing.probability import Calibration
from cryopick.settings import settings_of
from cryopick.types import JUNK_MAP, Micrograph, Picks

DEFAULT_MEMBERS = ("general", "cryotransformer", "segmentation-crf", "cryosegnet")
SHARE_OF_RULE = {"union": 0.0, "majority": 0.5, "intersection": 1.0}
"""Share of the members that must have a pick: more than this, or all."""


class _ScoreMeaning:
    """What the score is: of the class, that of the default rule; of a picker, that of its own."""

    def __get__(self, picker: ConsensusPicker | None, owner: type[Any]) -> str:
        if picker is None or picker.has_calibrated_scores:
            return "probability that the pick is right, 0 to 1, of all members together, calibrated on simulation"
        return "share of the members that have the pick, 0 to 1; not calibrated"


@register_picker(PICKER)
@dataclass(frozen=True, kw_only=True)
class ConsensusPicker(HoldsModels, ChoosesByExpectedF1):
    """Several pickers in one pass, and of each particle one pick: what they say of it together.

    Picks of the members that mean one particle are found as REPIC finds them (C. J. F. Cameron et al., Nature Methods
    20, 2023): cliques of overlapping boxes, at most one pick of each member, chosen by an integer program.
    """

    score_meaning: ClassVar[str] = _ScoreMeaning()  # type: ignore[assignment]  # a text, as the protocol says
    fills_machine: ClassVar[bool] = True
    """It holds the networks of all members."""
    run_level_fields: ClassVar[frozenset[str]] = TOLD_FIELDS

    of: Annotated[tuple[str, ...], "the members: names of pickers, or of folders in --picks"] = DEFAULT_MEMBERS
    rule: Annotated[
        Literal["expected-f1", "majority", "union", "intersection"],
        "what is kept: by the probability that all members give together, or by how many members have it",
    ] = "expected-f1"
    diameter: Annotated[Length | None, "particle diameter, for example 180A or 108px; measured when not given"] = None
    picks: Annotated[
        Path | None,
        "folder with one folder of CSV files a member, joined instead of being picked; `cryopick consensus` makes it",
    ] = None
    weights: Annotated[Path | None, "what members' scores are worth together, instead of the shipped file"] = None
    device: Annotated[str, "auto, cpu, cuda or cuda:N"] = "auto"
    precision: Annotated[str, "of all members: auto, float32 or bfloat16; auto takes each one's fastest"] = "auto"

    def __post_init__(self) -> None:
        if len(self.of) < 2 or len(set(self.of)) < len(self.of):
            raise SettingsError(f"of is {', '.join(self.of) or 'empty'}: expected two different pickers or more")
        if PICKER in self.of:
            raise SettingsError(f"of is {', '.join(self.of)}: a consensus cannot be a member of itself")
        if self.picks is None:
            for name in self.of:
                picker_class(name)
        if self.weights is not None and self.rule != "expected-f1":
            raise SettingsError(f"weights are for rule expected-f1; leave them out with rule {self.rule}")
        if self.rule == "expected-f1" and self.picks is None:
            blind = [name for name in self.of if not gives_probabilities(picker_class(name)())]
            if blind:
                raise SettingsError(
                    f"the scores of {', '.join(blind)} are no probabilities, which rule expected-f1 joins; leave "
                    "these out, or choose --rule majority, union or intersection"
                )

    # ------------------------------------------------------------------------------------------------------- members

    @property
    def needs_extra(self) -> str:
        """What a member needs that is picked."""
        needed = [] if self.picks is not None else [getattr(picker_class(name), "needs_extra", "") for name in self.of]
        return next(filter(None, needed), "")

    def require_files(self, configuration: str) -> None:  # noqa: ARG002  # of the protocol
        """Raise where a member's picks, or what scores are worth together, are not there.

        Raises
        ------
        InputError
            If the folder of a member is missing.
        WeightsError, SettingsError
            As `load_stacking`.
        """
        folders = [] if self.picks is None else [self.picks / name for name in self.of]
        for folder in folders:
            if not os.path.isdir(folder):
                raise InputError(f"{folder}: there is no such folder; expected the picks of member {folder.name}")
        if self.rule == "expected-f1":
            self._stacking()

    @property
    def needs_survey(self) -> bool:
        """Whether members look at some micrographs first."""
        return self.picks is None

    @property
    def members(self) -> dict[str, Any]:
        """The pickers by name, set as this one is; they are made once and keep their models."""
        made: dict[str, Any] = self._models.get(self._made_members, [])
        return made

    def _made_members(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self.picks is not None:
            return made
        for name in self.of:
            own = {setting.name for setting in settings_of(picker_class(name))}
            shared = {"diameter": self.diameter, "device": self.device, "precision": self.precision}
            made[name] = make_picker(name, **{key: value for key, value in shared.items() if key in own})
        return made

    def close(self) -> None:
        """Let the models of all members go."""
        for member in self.members.values():
            if isinstance(member, HoldsModels):
                member.close()
        super().close()

    def precision_on(self, device: str) -> str:
        """The number formats of the members on a device."""
        asked = {member.precision_on(device) for member in self.members.values() if hasattr(member, "precision_on")} - {
            ""
        }
        return "+".join(sorted(asked))

    def shipped_weights(self) -> Mapping[str, str]:
        """Of all members, and of what their scores are worth together."""
        used = {} if self.weights is not None or self.rule != "expected-f1" else {"weights": PICKER}
        for name, member in self.members.items():
            if hasattr(member, "shipped_weights"):
                used |= {f"{name} {role}": file for role, file in member.shipped_weights().items()}
        return used

    # -------------------------------------------------------------------------------------------------------- survey

    def holding_particles(self, micrographs: Sequence[Micrograph]) -> list[int]:
        """On which of them the first member that can tell sees particles; all, where none can."""
        for member in self.members.values():
            if hasattr(member, "holding_particles"):
                found: list[int] = member.holding_particles(micrographs)
                return found
        return list(range(len(micrographs)))

    def survey(self, micrographs: Sequence[Micrograph]) -> Survey:
        """What the members see, each measured once: what one has found is given to those after it."""
        if not micrographs:
            return NOTHING_SEEN
        seen = NOTHING_SEEN if self.diameter is None else Survey(particle_size=self.diameter)
        for member in self.members.values():
            if surveys(member):
                seen = _with_all(seen, _sized(member, seen).survey(micrographs))
        return seen

    # ---------------------------------------------------------------------------------------------------------- pick

    def pick(self, micrograph: Micrograph, survey: Survey | None = None) -> Picks:
        """One pick of each group, best first; `maps` holds the junk probability of the first member that has one."""
        if self.picks is not None:
            found = [self._given(name, micrograph) for name in self.of]
            return self.join(micrograph, found, diameter_px=self._diameter_px(found, micrograph))
        seen = self.survey([micrograph]) if survey is None else survey
        if seen.particle_size is None:
            return Picks.none_on(micrograph)
        found = [member.pick(micrograph, seen) for member in self.members.values()]
        return self.join(micrograph, found, diameter_px=seen.particle_size.middle_px(micrograph.pixel_size_angstrom))

    def _given(self, member: str, micrograph: Micrograph) -> Picks:
        """What a member has on a micrograph, in its folder; where it has none there, nothing."""
        assert self.picks is not None
        every: dict[str, Picks] = self._models.get(_read_member, [], self.picks / member)
        name = without_extension(micrograph.name)
        return every.get(name, Picks.none_on(micrograph))

    def _diameter_px(self, found: Sequence[Picks], micrograph: Micrograph) -> float:
        if self.diameter is not None:
            return self.diameter.middle_px(micrograph.pixel_size_angstrom)
        known = np.concatenate([one.diameter_px[np.isfinite(one.diameter_px)] for one in found])
        if not len(known) and any(len(one) for one in found):
            raise SettingsError(
                "no member says how large its particles are; give --diameter, for example 180A or 108px"
            )
        return float(np.median(known)) if len(known) else 1.0

    def join(self, micrograph: Micrograph, found: Sequence[Picks], *, diameter_px: float) -> Picks:
        """One pick of each group of the members' picks on a micrograph, which are in their order."""
        junk = next((one.maps[JUNK_MAP] for one in found if JUNK_MAP in one.maps), None)
        if self.rule != "expected-f1":
            found = [self._kept(name, one) for name, one in zip(self.of, found, strict=True)]
            names, found = self.of, [replace(one, score=np.ones(len(one), np.float32)) for one in found]
            groups, centres = joined(found, diameter_px=diameter_px)
            score = (groups.size / len(found)).astype(np.float32)
        else:
            stacking = self._stacking()
            names, found = stacking.members, [found[self.of.index(name)] for name in stacking.members]
            groups, centres = joined(found, diameter_px=diameter_px)
            score = stacking.probability(features(groups, centres, found, diameter_px=diameter_px))
        return Picks.of_candidates(
            micrograph,
            centres,
            score,
            _mean_diameters(groups, found, diameter_px),
            maps={} if junk is None else {JUNK_MAP: junk},
            least_centring_error_px=least_centring_errors(groups, found, names, is_counted=score >= LIKELY),
            warnings=tuple(dict.fromkeys(warning for one in found for warning in one.warnings)),
        )

    def _kept(self, member: str, found: Picks) -> Picks:
        """What a member itself would keep: by the cut of its run, else by its default threshold."""
        if self.picks is not None:
            return found.kept()
        return found.take(np.flatnonzero(found.score >= np.float32(self.members[member].default_threshold)))

    # --------------------------------------------------------------------------------------------------- the threshold

    @property
    def has_calibrated_scores(self) -> bool:
        """Whether scores are probabilities: where they are joined, not where members are counted."""
        return self.rule == "expected-f1"

    @property
    def calibration(self) -> Calibration:
        """Of the joined scores, on simulation."""
        return self._stacking().calibration

    def choose_threshold(
        self, scores: NDArray[np.float32], survey: Survey, *, target_precision: float | None = None
    ) -> float:
        """The cut with the highest expected F1; where members are counted, what the rule asks for."""
        if self.rule == "expected-f1":
            return super().choose_threshold(scores, survey, target_precision=target_precision)
        if target_precision is not None:
            raise SettingsError(
                f"a target precision needs probabilities, and rule {self.rule} counts members; leave one of them out"
            )
        share = SHARE_OF_RULE[self.rule]
        return share if share == 1.0 else (np.floor(share * len(self.of)) + 0.5) / len(self.of)

    def _stacking(self) -> Stacking:
        path = find_weights(self.weights or PICKER)
        return self._models.get(load_stacking, [path], self.weights, members=self.of)


def _read_member(folder: Path) -> dict[str, Picks]:
    """The picks in a folder of CSV files, by micrograph without extension, less those that rules of a run reject."""
    found = read_picks(folder, format="csv") if any(folder.rglob("*.csv")) else {}
    return {
        without_extension(name): one.take(np.flatnonzero(np.isin(one.reason, ("", BELOW_THRESHOLD, NOT_BELIEVED))))
        for name, one in found.items()
    }


def _sized(member: Any, seen: Survey) -> Any:
    """A member that measures nothing that was measured before it."""
    if not is_dataclass(member) or isinstance(member, type) or seen.particle_size is None:
        return member
    own = {field.name for field in fields(member)}
    known = {"diameter": seen.particle_size, "working_diameter": seen.working_size}
    return replace(member, **{name: value for name, value in known.items() if name in own and value is not None})


def _with_all(seen: Survey, more: Survey) -> Survey:
    """What both hold; of what both measured, the first."""
    nothing = Survey()
    added = {
        field.name: getattr(more, field.name)
        for field in fields(Survey)
        if getattr(seen, field.name) == getattr(nothing, field.name)
    }
    return replace(seen, **added)


def _mean_diameters(groups: Groups, found: Sequence[Picks], diameter_px: float) -> NDArray[np.float32]:
    """(g,) of the members that say one; the run's where none does."""
    total, count = np.zeros(len(groups)), np.zeros(len(groups))
    for index, one in enumerate(found):
        is_there = groups.members[:, index] != ABSENT
        own = one.diameter_px[groups.members[is_there, index]].astype(np.float64)
        total[is_there] += np.nan_to_num(own)
        count[is_there] += np.isfinite(own)
    return np.where(count > 0, total / np.maximum(count, 1), diameter_px).astype(np.float32)
