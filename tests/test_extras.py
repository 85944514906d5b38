"""Optional packages: what is said of a missing one works on this machine and is in the project's own list."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from cryopick.errors import MissingExtraError
from cryopick.extras import EXTRAS, install_hint, require_extra


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = {name: tuple(needs) for name, needs in project["optional-dependencies"].items() if name != "dev"}
    assert declared == EXTRAS


def test_a_missing_package_is_named_with_a_command_for_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError) as caught:
        require_extra("train", ("json", "lightning"), "training")
    assert str(caught.value).startswith("training needs lightning and tensorboard; install with: ")
    assert f"{sys.executable} -m pip install" in str(caught.value).replace("'", "")
    assert str(caught.value).endswith("(not found: lightning)")
    assert "cryopick[" not in install_hint("train")  # no index has cryopick


def test_packages_that_are_there_raise_nothing() -> None:
    require_extra("train", ("json", "email.mime"), "training")
