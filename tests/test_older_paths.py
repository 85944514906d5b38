"""Scripts of version 0.1 that imported modules by path."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import cryopick
from cryopick.older_paths import MOVED


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("cryopick.io.coordinates", "read_picks"),
        ("cryopick.io.images", "read_micrograph"),
        ("cryopick.io.inputs", "find_micrographs"),
    ],
)
def test_packages_that_were_modules_have_their_public_names(path: str, name: str) -> None:
    assert getattr(import_module(path), name) is getattr(cryopick, name)


def test_a_path_that_has_moved_gives_its_names_and_says_where_they_are_now() -> None:
    script = (
        "import warnings; warnings.simplefilter('always')\n"
        "from cryopick.training.general import GeneralTask, GeneralTrainable\n"
        "from cryopick.workflows.run_folder import RunFolder\n"
        "from cryopick.io.mrc import write_mrc\n"
        "print(GeneralTask.__module__, RunFolder.__module__, write_mrc.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "cryopick.pickers.general.trainable",
        "cryopick.runs.folder",
        "cryopick.io.images.mrc",
    ]
    assert "cryopick.io.mrc has moved to cryopick.io.images.mrc" in done.stderr


def test_every_new_place_exists_and_no_old_one_does() -> None:
    for homes in MOVED.values():
        for home in homes:
            import_module(f"cryopick.{home}")
    with pytest.raises(ModuleNotFoundError):
        import_module("cryopick.no_such_module")
