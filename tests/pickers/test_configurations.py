"""`--as article` and `--as program`: one word sets everything, what is given besides wins and is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.pickers import registry
from cryopick.pickers.configurations import CONFIGURATION_NAMES, Configuration, configurations_of
from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.runs.settings import make_settings, settings_sections
from cryopick.types import Picks


@dataclass(frozen=True, kw_only=True)
class _System:
    """A published system."""

    score_meaning: ClassVar[str] = "0 to 1"
    default_threshold: ClassVar[float] = 0.5
    configurations: ClassVar[Mapping[str, Configuration]] = {
        "article": Configuration(about="As written.", settings={"level": 3, "as_found": True})
    }
    diameter: Annotated[Length | None, "diameter"] = None
    level: Annotated[int, "level"] = 1

    def pick(self, micrograph: Any, survey: Any = None) -> Picks:
        raise NotImplementedError


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> str:
    list_pickers()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register_picker("system-of-test")(_System)
    return "system-of-test"


def test_a_configuration_sets_what_it_names_and_the_run_says_which_it_is(system: str) -> None:
    settings = make_settings(system, as_="article", diameter="20px")
    assert (settings.picker.level, settings.selection.as_found, settings.run.as_) == (3, True, "article")
    assert settings_sections(settings)["run"]["as_"] == "article"
    ours = make_settings(system)
    assert (ours.picker.level, ours.selection.as_found, ours.run.as_) == (1, False, None)


def test_what_is_given_besides_wins_and_is_named(system: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert make_settings(system, as_="article", level="3").picker.level == 3
        assert not caplog.messages
        assert make_settings(system, as_="article", level=5).picker.level == 5
    assert "level = 5" in caplog.text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"as_": "program"}, "it can as article"),
        ({"as_": "poem"}, "expected article or program"),
        ({"as_": "article", "level": None}, "leave --as out"),
        ({"as_": "article", "target_precision": 0.9}, "leave one of them out"),
    ],
)
def test_what_cannot_be_is_refused(system: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        make_settings(system, **given)


def test_a_picker_of_no_published_system_says_so() -> None:
    with pytest.raises(SettingsError, match="no published system"):
        make_settings("blob", as_="article")


def test_as_found_keeps_what_every_rule_of_ours_would_reject() -> None:
    picks = Picks(
        micrograph_name="m",
        xy_px=np.array([[-3.0, 5.0], [10.0, 10.0], [11.0, 10.0]]),
        score=np.array([0.1, 0.2, 0.3], np.float32),
        diameter_px=np.full(3, 20.0, np.float32),
        shape_yx=(32, 32),
    )
    ours = select(picks, SelectionSettings(), threshold=-np.inf)
    assert ours.reason.tolist() == ["edge", "too close to a better pick", ""]
    assert select(picks, SelectionSettings(as_found=True), threshold=-np.inf).is_kept.all()
    spaced = SelectionSettings(as_found=True, min_distance=Length(5, 5, "px"))
    assert select(picks, spaced, threshold=-np.inf).reason.tolist() == ["", "too close to a better pick", ""]


@pytest.mark.parametrize("name", list_pickers())
def test_every_setting_of_every_configuration_exists_and_can_be_made(name: str) -> None:
    cls = picker_class(name)
    for word in configurations_of(cls):
        assert word in CONFIGURATION_NAMES
        assert make_settings(name, as_=word).run.as_ == word
