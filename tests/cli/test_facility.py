"""What the page "In a facility's pipeline" promises to services that call cryopick."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph
from PIL import Image

from cryopick.cli.exit_codes import ENDINGS
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.star import read_star
from cryopick.runs.folder import RunFolder
from cryopick.runs.report.pictures import OVERVIEW_PX
from cryopick.types import Micrograph

PAGE = Path(__file__).parents[2] / "docs" / "facility.md"
BLOB = ("-o", "External/job012", "--picker", "blob", "-d", f"{DIAMETER_PX}px", "--threshold", "5", "-j", "1", "--json")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for seed in range(2):
        write_micrograph(tmp_path / "mics" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    return tmp_path


def test_each_call_adds_its_micrograph_and_a_repeated_one_is_told_again(project: Path) -> None:
    told = []
    for name in ("m0.mrc", "m1.mrc", "m0.mrc"):
        done = cryopick("pick", f"mics/{name}", *BLOB, cwd=project)
        assert done.returncode == 0, done.stderr
        (event,) = (one for one in map(json.loads, done.stdout.splitlines()) if one["event"] == "micrograph")
        assert event["name"] == name
        told.append(event)
    assert [one["status"] for one in told] == ["done", "done", "skipped"]
    changing = ("status", "position", "total")
    first, again = ({key: one[key] for key in one if key not in changing} for one in (told[0], told[2]))
    assert again == first
    listed = read_star(project / "External" / "job012" / "autopick.star")["coordinate_files"]
    assert listed.text("rlnMicrographName") == ["mics/m0.mrc", "mics/m1.mrc"]


def test_no_particle_is_exit_code_0_and_an_empty_table(project: Path) -> None:
    write_micrograph(project / "mics" / "blank.mrc", Micrograph(np.ones((120, 160), np.float32)))
    done = cryopick("pick", "mics/blank.mrc", *BLOB, cwd=project)
    _, event, run = (json.loads(line) for line in done.stdout.splitlines())
    assert (done.returncode, event["status"], event["count"], run["particles"]) == (0, "done", 0, 0)
    (table,) = read_star(Path(event["picks_file"])).values()
    assert len(table.floats("rlnCoordinateX")) == 0
    assert f"at most {OVERVIEW_PX} px wide and high" in PAGE.read_text(encoding="utf-8")
    picture = Image.open(BytesIO(Path(event["image_file"]).read_bytes()))
    assert picture.format == "JPEG"
    assert max(picture.size) <= OVERVIEW_PX


def test_micrographs_are_added_by_processes_of_their_own_and_the_lists_come_with_one_call_for_all(
    project: Path,
) -> None:
    for name in ("m0.mrc", "m1.mrc", "m0.mrc"):
        done = cryopick("pick", f"mics/{name}", *BLOB, "--add", "--root", "mics", cwd=project)
        assert done.returncode == 0, done.stderr
        assert not (project / "External" / "job012" / "autopick.star").exists()
    (event,) = (one for one in map(json.loads, done.stdout.splitlines()) if one["event"] == "micrograph")
    assert (event["status"], event["count"], event["threshold"]) == ("skipped", 3, 5.0)
    done = cryopick("pick", "mics", *BLOB, cwd=project)
    assert done.returncode == 0, done.stderr
    listed = read_star(project / "External" / "job012" / "autopick.star")["coordinate_files"]
    assert listed.text("rlnMicrographName") == ["mics/m0.mrc", "mics/m1.mrc"]


def test_a_folder_in_use_is_an_output_error(project: Path) -> None:
    assert cryopick("pick", "mics/m0.mrc", *BLOB, cwd=project).returncode == 0
    with RunFolder(project / "External" / "job012").lock():
        done = cryopick("pick", "mics/m1.mrc", *BLOB, cwd=project)
    assert done.returncode == 6
    assert json.loads(done.stdout.splitlines()[-1])["kind"] == "output"


def test_fail_on_any_counts_the_failures_of_earlier_calls(project: Path) -> None:
    (project / "mics" / "no_image.mrc").write_text("half a file")
    assert cryopick("pick", "mics/no_image.mrc", *BLOB, cwd=project).returncode == 1
    assert cryopick("pick", "mics/m0.mrc", *BLOB, cwd=project).returncode == 0
    assert cryopick("pick", "mics/m1.mrc", *BLOB, "--fail-on", "any", cwd=project).returncode == 1


def test_every_option_kind_and_field_that_the_page_names_exists(project: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    helps = "".join(cryopick(command, "--help").stdout for command in ("pick", "watch", "convert", "rethreshold"))
    ours = [row.split("|")[2] for row in page.splitlines() if row.startswith("|") and row.count("|") == 3]
    flags = {flag for cell in ours for flag in re.findall(r"--[a-z][a-z-]+", cell)}
    assert len(flags) > 10
    assert [flag for flag in sorted(flags) if flag not in helps] == []
    kinds = page.split("| kind | answer |")[1].split("\n\n")[0]
    named = {kind for row in kinds.splitlines()[2:] for kind in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {one.kind for one in ENDINGS} - {"done", "unheard"}
    done = cryopick("pick", "mics/m0.mrc", *BLOB, cwd=project)
    _, event, run = (json.loads(line) for line in done.stdout.splitlines())
    fields = page.split("| wanted | field |")[1].split("\n\n")[0]
    for field in re.findall(r"`(\w+)`", fields):
        columns = Path(event["candidates_file"]).read_text().splitlines()[0].split(",")
        known = (*event, *run, *columns, "done", "failed", "skipped")
        assert field in known, field
