"""Picking in memory keeps what a run in a folder keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from discs import DIAMETER_PX

from cryopick.geometry.units import Length
from cryopick.io.coordinates.relion import read_relion
from cryopick.io.images.micrographs import read_micrograph
from cryopick.pickers.registry import make_picker
from cryopick.runs.in_memory import pick_in_memory
from cryopick.runs.settings import make_settings
from cryopick.workflows.pick import pick_to_folder


def test_picks_in_memory_are_those_of_the_run_folder(folder_of_discs: Path, tmp_path: Path) -> None:
    settings = make_settings("blob", diameter=f"{DIAMETER_PX}px")
    summary = pick_to_folder([folder_of_discs], tmp_path / "run", settings, workers=1)
    written = read_relion(tmp_path / "run" / "particles.star")
    paths = sorted(folder_of_discs.rglob("*.mrc"))
    found = pick_in_memory(
        make_picker("blob", diameter=Length(DIAMETER_PX, DIAMETER_PX, "px")), [read_micrograph(path) for path in paths]
    )
    assert found.threshold == pytest.approx(summary.threshold)
    assert len(written) == len(paths) == 3
    for path, picks in zip(paths, found.picks, strict=True):
        kept, stored = picks.kept().xy_px, written[path.name].xy_px
        assert len(kept) == 3
        assert np.allclose(sorted(kept.tolist()), sorted(stored.tolist()), atol=0.01)


def test_no_micrographs_give_no_picks() -> None:
    found = pick_in_memory(make_picker("blob", diameter=Length(20, 20, "px")), [])
    assert (found.picks, found.candidates) == ([], [])
