"""Fixtures of the workflow tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from discs import disc_micrograph

from cryopick.io.images.micrographs import write_micrograph


@pytest.fixture
def folder_of_discs(tmp_path: Path) -> Path:
    """A folder with three micrographs of three discs each, one of them in a sub-folder."""
    folder = tmp_path / "micrographs"
    for seed, name in enumerate(("m1.mrc", "m2.mrc", "grid two/m3 é.mrc")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(folder / name, disc_micrograph(name, seed=seed))
    return folder
