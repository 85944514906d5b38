"""A run of three small micrographs, and a browser for all tests of a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import WHY_NONE, chromium
from discs import disc_micrograph

from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs.settings import make_settings
from cryopick.workflows.pick import pick_to_folder

NAMES = ("m1.mrc", "m2 #2 %41.mrc", "grid two/<img src=x onerror=document.title='hacked'>.mrc")


@pytest.fixture(scope="session")
def run_on_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Picked once by `blob`, with names that are no harmless words."""
    folder = tmp_path_factory.mktemp("viewed")
    for seed, name in enumerate(NAMES):
        path = folder / "micrographs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(path, disc_micrograph(name, seed=seed))
    settings = make_settings("blob", diameter="20px")
    pick_to_folder([folder / "micrographs"], folder / "run", settings, workers=1)
    return folder


@pytest.fixture
def run(run_on_record: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may write beside; its micrographs are the same files."""
    return Path(shutil.copytree(run_on_record / "run", tmp_path / "run"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if WHY_NONE:
        pytest.skip(WHY_NONE)
    with chromium(tmp_path_factory.mktemp("profile") / "chromium") as driver:
        yield driver
