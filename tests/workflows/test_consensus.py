"""Runs joined into one: of each particle one pick, by the rule that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from discs import disc_centres, disc_micrograph

import cryopick
from cryopick.cli.pick import print_summary
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


def test_a_run_tells_how_far_centres_are_off(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    members = [tmp_path / f"{name}.star" for name in "abc"]
    for member in members:
        xy_px = [disc_centres(seed) + rng.normal(0, 1.0, (3, 2)) for seed in range(2)]
        picks = [cryopick.Picks(xy_px=xy, micrograph_name=f"m{seed}") for seed, xy in enumerate(xy_px)]
        cryopick.write_picks(picks, member)
    summary = cryopick.consensus(members, tmp_path / "agreed", micrographs=[images], diameter="20px", rule="union")
    assert set(summary.least_centring_error_px) == {"consensus", "a", "b", "c"}
    assert 0.3 < summary.least_centring_error_px["consensus"] < 1.5  # sqrt(2 ln 2 / 3) = 0.68, of 18 differences
    assert summary.least_centring_error_angstrom["a"] == pytest.approx(
        2 * summary.least_centring_error_px["a"], abs=0.01
    )
    again = cryopick.rethreshold(tmp_path / "agreed", threshold=0.5)
    assert again.least_centring_error_px == summary.least_centring_error_px
    print_summary(summary, tmp_path / "agreed")
    told = capsys.readouterr().out
    assert f"centring error (median): at least {summary.least_centring_error_px['consensus']:.2g} px (" in told
    assert "what all share comes on top" in told
    assert "median centring error" in (tmp_path / "agreed" / "report.html").read_text()


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


def test_sets_in_different_frames_and_picks_on_other_images_are_told(
    tmp_path: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    height, width = disc_micrograph("m0.mrc", seed=0).shape_yx
    xy = np.random.default_rng(0).uniform((5, 5), (width - 5, height - 5), (30, 2))
    for name, y in (("first", xy[:, 1]), ("second", height - 1 - xy[:, 1])):
        (tmp_path / name).mkdir()
        rows = "".join(f"{x},{row}\n" for x, row in zip(xy[:, 0], y, strict=True))
        (tmp_path / name / "m0.csv").write_text("x,y\n" + rows)
    (tmp_path / "second" / "other.csv").write_text("x,y\n1,2\n")
    sets = [tmp_path / "first", tmp_path / "second"]
    cryopick.consensus(sets, tmp_path / "agreed", micrographs=[images], diameter="10px", rule="union")
    assert "second counts y from the other end than first" in caplog.text
    assert "on 1 micrographs that are not among those given are left out: other" in caplog.text
