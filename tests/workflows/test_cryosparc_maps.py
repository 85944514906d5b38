"""Maps in cryoSPARC from a run's picks: the jobs that are made, what comes back, and the same command after a stop."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph
from fake_cryosparc import FakeCryosparc, exposures_table
from fake_cryosparc_jobs import FakeServer

from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.structures.volume import read_volume, write_volume
from cryopick.types import Volume
from cryopick.workflows import cryosparc_job

WORDS = ("--project", "P3", "--workspace", "W1", "--exposures", "J42.exposures", "--cs-rows", "relion")
SIZE, PIXEL = 32, 1.5  # as the played server says


@dataclass
class Server(FakeServer):
    """Saves picks as `FakeCryosparc`, and makes jobs as `FakeServer`; its maps are noisy copies of a true one."""

    picks: FakeCryosparc = field(default_factory=lambda: FakeCryosparc(exposures_table([], shape_yx=(1, 1))))
    truth: np.ndarray = field(default_factory=lambda: np.zeros((SIZE,) * 3, np.float32))

    def find_project(self, uid: str) -> Server:
        return self

    def find_workspace(self, uid: str) -> Server:
        return self

    def find_job(self, uid: str) -> Any:
        return self.picks if uid == "J42" else super().find_job(uid)

    def create_external_job(self, workspace: str, *, title: str) -> Any:
        return self.picks.create_external_job(workspace, title=title)

    def download_mrc(self, path: str) -> tuple[None, np.ndarray]:
        noise = np.random.default_rng(len(path)).normal(0, 0.05 * self.truth.std(), self.truth.shape)
        return None, self.truth + noise.astype(np.float32)


@pytest.fixture(scope="module")
def picked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    for seed in range(2):
        write_micrograph(folder / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    blob = ("--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1", "--pixel-size", "2")
    assert cryopick("pick", "in", "-o", "run1", *blob, cwd=folder).returncode == 0
    along = np.arange(SIZE) - SIZE // 2
    z, y, x = np.meshgrid(along, along, along, indexing="ij")
    density = sum(
        np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 8) * h
        for a, b, c, h in ((0, 0, 0, 1), (5, 1, -2, 2), (-3, 4, 3, 1.5), (1, -5, 4, 1))
    )
    write_volume(folder / "truth.mrc", Volume(np.asarray(density, np.float32), PIXEL))
    return folder


@pytest.fixture
def server(picked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    exposures = exposures_table([f"J7/00857856557416174501{n}_m{n}.mrc" for n in range(2)], shape_yx=(120, 160))
    made = Server(
        tmp_path / "v3d" / "cryosparc.json",
        picks=FakeCryosparc(exposures),
        truth=read_volume(picked / "truth.mrc").density,
    )
    monkeypatch.setattr(cryosparc_job, "connect", lambda url: made)
    return made


def command(server: Server, *words: str) -> tuple[str, ...]:
    maps = str(server.record.parent)
    return ("cryosparc", "run1", *WORDS, "--maps", maps, "--diameter", "36A", "--seeds", "1", *words)


def test_a_dry_run_names_every_job_and_makes_none(picked: Path, server: Server) -> None:
    done = cryopick(*command(server, "--dry-run", "--symmetry", "D7", "--bin-to", "32"), cwd=picked)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(".")[0] for line in lines] == [str(number) for number in range(1, 9)]
    assert "extract_micrographs_cpu_parallel (extract): micrographs <- J42.exposures" in lines[1]
    assert "bin_size_pix=32" in lines[1]
    assert "refine_symmetry=D7" in lines[-1]
    assert not server.made
    assert not server.picks.calls
    assert not server.record.exists()


def test_maps_come_back_with_figures_of_our_own_and_the_same_command_makes_nothing_again(
    picked: Path, server: Server
) -> None:
    words = command(server, "--truth", "truth.mrc")
    done = cryopick(*words, cwd=picked)
    assert done.returncode == 0, done.stderr
    assert json.loads(server.record.read_text())["jobs"]["picks"] == ["J55"]
    assert server.made[0][2] == {"micrographs": ("J42", "exposures"), "particles": ("J55", "particles")}
    maps = json.loads((server.record.parent / "maps.json").read_text())["maps"]
    assert [(one["selection"], one["seed"]) for one in maps] == [("none", 1), ("auto", 1)]
    for one in maps:
        assert one["particles"] == 512
        assert one["half_angstrom"] < 5
        assert one["truth_angstrom"] < 5
        assert not one["is_mirrored"]
    assert read_volume(server.record.parent / "none/seed1/half1.mrc").voxel_size_angstrom == 1.5
    assert "none" in done.stdout

    count, saved = len(server.made), len(server.picks.calls)
    again = cryopick(*words, cwd=picked)
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert len(server.made) == count
    assert len(server.picks.calls) == saved


def test_a_refinement_that_fails_twice_is_a_row_that_says_so(picked: Path, server: Server) -> None:
    server.fails = {"homo_refine_new": 2}
    done = cryopick(*command(server, "--select2d", "none", "--json"), cwd=picked)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["maps"]
    assert row["failure"] == "failed in cryoSPARC, 2 times: J3, J4"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--select2d", "mine"), "none and auto"),
        (("--seeds", "0"), "--seeds is 0"),
        (("--diameter", "40px"), "give it in Å"),
        (("--box-size", "33"), "expected an even number"),
    ],
)
def test_what_is_impossible_is_told_before_any_job(
    picked: Path, server: Server, words: tuple[str, ...], told: str
) -> None:
    done = cryopick(*command(server, *words), cwd=picked)
    assert done.returncode == 4
    assert told in done.stderr
    assert not server.made
    assert not server.picks.calls


def test_a_dry_run_without_maps_is_no_wish(picked: Path, server: Server) -> None:
    done = cryopick("cryosparc", "run1", *WORDS, "--dry-run", cwd=picked)
    assert done.returncode == 4
    assert "give --maps FOLDER" in done.stderr
