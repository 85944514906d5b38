"""Runs joined into one: of each particle one pick, by the rule that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from discs import disc_centres, disc_micrograph

import cryopick
from cryopick.errors import InputError, RunFolderError, SettingsError
from cryopick.io.images.micrographs import write_micrograph


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "micrographs"
    folder.mkdir()
    for seed in range(2):
        write_micrograph(folder / f"m{seed}.mrc", disc_micrograph(f"m{seed}.mrc", seed=seed))
    return folder


@pytest.fixture
def two_runs(tmp_path: Path, images: Path) -> list[Path]:
    """All discs, and the best two of each micrograph."""
    runs = [tmp_path / "all", tmp_path / "some"]
    for run, count in zip(runs, (3, 2), strict=True):
        cryopick.pick(images, "blob", output=run, diameter="20px", max_count=count)
    return runs


@pytest.mark.parametrize(("rule", "particles"), [("union", 6), ("majority", 4), ("intersection", 4)])
def test_a_run_of_the_consensus_counts_who_has_a_particle(
    tmp_path: Path, two_runs: list[Path], rule: str, particles: int
) -> None:
    summary = cryopick.consensus(two_runs, tmp_path / "agreed", names=["a", "b"], rule=rule)
    assert summary.picker == "consensus"
    assert summary.particles == particles
    assert (tmp_path / "agreed" / "report.html").is_file()
    found = cryopick.read_picks(tmp_path / "agreed" / "particles.star")
    for seed in range(2):
        distance = np.hypot(*(found[f"m{seed}.mrc"].xy_px[:, None] - disc_centres(seed)[None]).transpose(2, 0, 1))
        assert distance.min(axis=1).max() < 1.0
        assert len(set(distance.argmin(axis=1).tolist())) == len(distance)


def test_picks_of_other_programs_are_joined_with_their_micrographs(
    tmp_path: Path, two_runs: list[Path], images: Path
) -> None:
    theirs = tmp_path / "theirs.star"
    cryopick.convert(two_runs[1], theirs)
    summary = cryopick.consensus([two_runs[0], theirs], tmp_path / "agreed", micrographs=[images])
    assert summary.particles == 4


def test_what_cannot_be_joined_is_said(tmp_path: Path, two_runs: list[Path]) -> None:
    with pytest.raises(InputError, match="need as many different names, got a, a; give --names"):
        cryopick.consensus(two_runs, tmp_path / "agreed", names=["a", "a"])
    with pytest.raises(InputError, match="two sets of picks or more, got 1"):
        cryopick.consensus(two_runs[:1], tmp_path / "agreed")
    with pytest.raises(SettingsError, match="not those of a, b"):
        cryopick.consensus(two_runs, tmp_path / "agreed", names=["a", "b"], rule="expected-f1")
    theirs = tmp_path / "theirs.star"
    cryopick.convert(two_runs[1], theirs)
    with pytest.raises(SettingsError, match="only runs of cryopick hold"):
        cryopick.consensus([two_runs[0], theirs], tmp_path / "agreed", rule="expected-f1")
    cryopick.consensus(two_runs, tmp_path / "agreed")
    assert sorted(path.name for path in (tmp_path / "agreed" / "members").iterdir()) == ["all", "some"]
    with pytest.raises(RunFolderError, match="holds a run"):
        cryopick.consensus(two_runs, tmp_path / "agreed", names=["a", "b"])
    summary = cryopick.consensus(two_runs, tmp_path / "agreed", names=["a", "b"], rule="union", overwrite=True)
    assert summary.particles == 6
