"""What happens to a run folder from outside: damaged, foreign, copied, moved and hostile files of it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import CryopickError, InputError, RunFolderError, SettingsError, WeightsError
from cryopick.io.coordinates.formats import read_picks
from cryopick.io.images.micrographs import read_micrograph, write_micrograph
from cryopick.io.images.mrc import write_mrc
from cryopick.io.star import read_star
from cryopick.runs import one as pick_one
from cryopick.runs.folder import RunFolder
from cryopick.runs.place import output_folder
from cryopick.runs.results import RunSummary
from cryopick.runs.run import PickEvent
from cryopick.runs.settings import make_settings
from cryopick.workflows.begin import require_weights
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

SETTINGS: dict[str, Any] = {"diameter": f"{DIAMETER_PX}px"}


def pick(*inputs: Path | str, output: Path | str, events: list[PickEvent] | None = None, **options: Any) -> RunSummary:
    settings = options.pop("settings", None) or make_settings("blob", **SETTINGS)
    options.setdefault("workers", 1)
    listen = None if events is None else events.append
    return pick_to_folder(list(inputs), output, settings, on_event=listen, **options)


def picked(events: list[PickEvent]) -> list[str]:
    return [event.name for event in events if event.status == "done"]


def coordinate_paths(run: Path) -> list[str]:
    return read_star(run / "autopick.star")["coordinate_files"].text("rlnMicrographCoordinates")


@pytest.fixture
def finished(folder_of_discs: Path, tmp_path: Path) -> Path:
    """A run of three micrographs and nine particles."""
    pick(folder_of_discs, output=tmp_path / "run")
    return tmp_path / "run"


# ------------------------------------------------------------------------------------------------- damaged files


HEADER = "x_px,y_px,score,diameter_px,class_id,reason\n"
TABLES = {
    "empty": "",
    "zeros": "\0" * 100,
    "no header": "10,20,5,20,0,\n",
    "header alone": HEADER,
    "cut in a line": f"{HEADER}10,2",
    "a centre that is no number": f"{HEADER}nan,2,1,1,0,\n",
    "a class beyond all": f"{HEADER}1,2,1,1,99999999999999,\n",
}


@pytest.mark.parametrize("damage", list(TABLES))
def test_a_damaged_table_of_candidates_is_an_error_and_is_picked_again(
    finished: Path, folder_of_discs: Path, damage: str
) -> None:
    before = (finished / "candidates" / "m1.csv").read_bytes()
    (finished / "candidates" / "m1.csv").write_text(TABLES[damage])
    tables = {name: (finished / name).read_bytes() for name in ("autopick.star", "particles.star", "summary.json")}
    for reader in (lambda: rethreshold(finished, 0.2), lambda: evaluate(finished, finished / "particles.star")):
        with pytest.raises(CryopickError, match=r"candidates/m1\.csv.*`cryopick pick`"):
            reader()
    assert {name: (finished / name).read_bytes() for name in tables} == tables
    events: list[PickEvent] = []
    summary = pick(folder_of_discs, output=finished, events=events)
    assert (picked(events), summary.particles) == (["m1.mrc"], 9)
    assert (finished / "candidates" / "m1.csv").read_bytes() == before
    assert any("m1.mrc was damaged" in warning for warning in summary.warnings)
    assert "m1.mrc" in (finished / "run.log").read_text()


def test_a_table_cut_at_the_end_of_a_row_is_damaged(finished: Path, folder_of_discs: Path) -> None:
    path = finished / "candidates" / "m1.csv"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(RunFolderError, match=r"candidates/m1\.csv.*rows of"):
        rethreshold(finished, 0.2)
    pick(folder_of_discs, output=finished)
    assert path.read_text() == whole


def test_a_record_of_version_01_has_no_count_and_is_read(finished: Path) -> None:
    for path in (finished / "records").rglob("*.json"):
        content = json.loads(path.read_text())
        del content["candidate_count"]
        path.write_text(json.dumps(content))
    (finished / "place.json").unlink()
    assert rethreshold(finished, None).particles == 9


DAMAGES: dict[str, Any] = {
    "empty": "",
    "zeros": "\0" * 200,
    "a list": "[]",
    "nested deeply": "[" * 100_000,
    "shape of three": {"shape_yx": [7, 120, 160]},
    "shape as text": {"shape_yx": "big"},
    "pixel size as text": {"pixel_size_angstrom": "1.5"},
    "pixel size without end": {"pixel_size_angstrom": float("inf")},
    "seconds null": {"seconds": None},
    "name a number": {"name": 5},
    "warnings a number": {"warnings": 3},
    "warnings of numbers": {"warnings": [3]},
    "maps a text": {"maps": "abc"},
    "size a text": {"size_bytes": "1"},
    "half a character": {"error": "\ud800"},
    "another key": {"key": "m2"},
    "key that leads out": {"key": "../../m1"},
    "absolute key": {"key": "/tmp/m1"},
    "map that leads out": {"maps": ["../../x"]},
    "a line break in the name": {"relion_name": "a\nb"},
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_record_costs_one_micrograph(finished: Path, folder_of_discs: Path, damage: str) -> None:
    path = finished / "records" / "m1.json"
    change = DAMAGES[damage]
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    for reader in (lambda: rethreshold(finished, 0.2), lambda: evaluate(finished, finished / "particles.star")):
        with pytest.raises(CryopickError, match=r"records/m1\.json.*`cryopick pick`"):
            reader()
    events: list[PickEvent] = []
    summary = pick(folder_of_discs, output=finished, events=events)
    assert (picked(events), summary.particles) == (["m1.mrc"], 9)
    assert any("m1.mrc was damaged" in warning for warning in summary.warnings)


def test_all_damaged_records_are_told_at_once_and_mended_at_once(finished: Path, folder_of_discs: Path) -> None:
    for path in (finished / "records").rglob("*.json"):
        path.write_bytes(b"")
    with pytest.raises(RunFolderError, match="3 micrographs are damaged"):
        rethreshold(finished, 0.2)
    assert pick(folder_of_discs, output=finished).particles == 9
    assert rethreshold(finished, None).particles == 9


def test_a_damaged_micrograph_that_is_not_given_is_left_out_aloud(finished: Path, folder_of_discs: Path) -> None:
    (finished / "candidates" / "m1.csv").write_text("")
    (finished / "records" / "m2.json").write_text("")
    summary = pick(folder_of_discs / "grid two" / "m3 é.mrc", output=finished)
    assert summary.particles == 3
    assert list(summary.failed) == ["m1.mrc"]
    assert any("m2" in warning and "left out" in warning for warning in summary.warnings)
    assert not (finished / "picks" / "m1_picks.star").exists()
    assert pick(folder_of_discs, output=finished).particles == 9


@pytest.mark.parametrize("content", ['{"threshold": NaN}', '{"threshold": "x"}', '{"threshold": true}', "", "[" * 9999])
def test_a_damaged_moved_threshold_is_refused_and_can_be_set_again(
    finished: Path, folder_of_discs: Path, content: str
) -> None:
    (finished / "threshold.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"threshold\.json.*--reset"):
        pick(folder_of_discs, output=finished)
    assert rethreshold(finished, None).particles == 9


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"threshold": "high"}',
        '{"threshold": 1, "failed": 3}',
        '{"threshold": NaN}',
        '{"threshold": 1, "verdicts": 3}',
        '{"threshold": 1, "verdicts": {"m1": 3}}',
        '{"threshold": 1, "verdicts": {"m1": {"belief": [1]}}}',
    ],
)
def test_a_damaged_summary_is_told_by_those_who_read_it(finished: Path, content: str) -> None:
    (finished / "summary.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"summary\.json.*`cryopick pick`"):
        evaluate(finished, finished / "particles.star")


def test_words_of_a_damaged_summary_that_cannot_be_written_are_not_taken_over(finished: Path) -> None:
    content = json.loads((finished / "summary.json").read_text())
    (finished / "summary.json").write_text(json.dumps({**content, "precision": "\ud800"}))
    rethreshold(finished, None)
    assert json.loads((finished / "summary.json").read_text())["precision"] == ""


@pytest.mark.parametrize("content", ["", "not toml [", "\0" * 50])
def test_a_damaged_config_never_counts_as_the_default_settings(
    finished: Path, folder_of_discs: Path, content: str
) -> None:
    (finished / "config.toml").write_text(content)
    with pytest.raises(RunFolderError, match=r"config\.toml.*report\.html"):
        pick(folder_of_discs, output=finished)
    with pytest.raises(RunFolderError, match=r"config\.toml.*report\.html"):
        rethreshold(finished, 0.2)


def test_a_folder_whose_config_is_of_something_else_is_never_taken(folder_of_discs: Path, tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "config.toml").write_text("[finetune]\nlabels = 'complete'\n")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match="something else"):
            pick(folder_of_discs, output=tmp_path / "tuned", overwrite=overwrite)
    assert (tmp_path / "tuned" / "config.toml").read_text().startswith("[finetune]")


# --------------------------------------------------------------------------------------- stale and replaced files


def test_nothing_stays_of_a_micrograph_that_became_unreadable(finished: Path, folder_of_discs: Path) -> None:
    (folder_of_discs / "m1.mrc").write_bytes(b"cut")
    summary = pick(folder_of_discs, output=finished)
    assert list(summary.failed) == ["m1.mrc"]
    left = [path.relative_to(finished).as_posix() for path in finished.rglob("m1*")]
    assert left == ["records/m1.json"]


def test_picks_that_an_older_version_left_of_a_failed_micrograph_are_removed(finished: Path) -> None:
    path = finished / "records" / "m1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"error": "cannot be read"}))
    rethreshold(finished, 0.2)
    assert not (finished / "picks" / "m1_picks.star").exists()


def test_picks_stay_when_the_disk_with_the_micrographs_is_away(finished: Path, folder_of_discs: Path) -> None:
    listing = folder_of_discs.parent / "list.txt"
    listing.write_text("".join(f"{folder_of_discs / name}\n" for name in ("m1.mrc", "m2.mrc", "grid two/m3 é.mrc")))
    (folder_of_discs / "m1.mrc").unlink()
    summary = pick(f"@{listing}", output=finished)
    assert (summary.failed, summary.particles) == ({}, 9)
    assert any("gone" in warning for warning in summary.warnings)


def test_a_micrograph_that_is_replaced_while_it_is_picked_gets_the_picks_of_the_new_image(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_pick, replaced = pick_one.pick_micrograph, []

    def replace_meanwhile(micrograph: Any, settings: Any, **given: object) -> Any:
        if micrograph.name == "m1.mrc" and not replaced:
            replaced.append(micrograph.name)
            write_micrograph(folder_of_discs / "m1.mrc", disc_micrograph("m1", seed=77))
            os.utime(folder_of_discs / "m1.mrc", ns=(1, 1))
        return really_pick(micrograph, settings)

    monkeypatch.setattr(pick_one, "pick_micrograph", replace_meanwhile)
    events: list[PickEvent] = []
    pick(folder_of_discs, output=tmp_path / "run", events=events)
    assert sorted(picked(events)) == ["grid two/m3 é.mrc", "m1.mrc", "m2.mrc"]
    pick(folder_of_discs, output=tmp_path / "fresh")
    ours, fresh = (tmp_path / name / "candidates" / "m1.csv" for name in ("run", "fresh"))
    assert ours.read_bytes() == fresh.read_bytes()
    assert "m1.mrc: the file changed while it was picked" in (tmp_path / "run" / "run.log").read_text()


def test_a_micrograph_that_keeps_changing_is_told_and_picked_again_by_the_next_call(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_pick = pick_one.pick_micrograph

    def still_written(micrograph: Any, plan: Any, **mask: Any) -> Any:
        if micrograph.name == "m1.mrc":
            with open(folder_of_discs / "m1.mrc", "ab") as stream:
                stream.write(b"\0")
        return really_pick(micrograph, plan, **mask)

    with monkeypatch.context() as writing:
        writing.setattr(pick_one, "pick_micrograph", still_written)
        summary = pick(folder_of_discs, output=tmp_path / "run")
    assert any("m1.mrc changed while it was picked" in warning for warning in summary.warnings)
    write_micrograph(folder_of_discs / "m1.mrc", disc_micrograph("m1", seed=77))
    events: list[PickEvent] = []
    pick(folder_of_discs, output=tmp_path / "run", events=events)
    assert picked(events) == ["m1.mrc"]


# ------------------------------------------------------------------------------------------- copied, moved, called


def test_a_copied_run_reads_its_own_picks_and_says_so(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    pick(folder_of_discs, output="A")
    shutil.copytree("A", "B")
    moved = rethreshold("A", 0.2).particles
    assert moved > 9
    with caplog.at_level(logging.WARNING):
        assert sum(map(len, read_picks("B").values())) == 9
    assert "B/picks" in caplog.text
    assert "A/picks" in caplog.text
    (tmp_path / "B" / "picks" / "m1_picks.star").unlink()
    with pytest.raises(InputError, match="B/picks is missing"):
        read_picks("B")


def test_the_paths_of_relion_stay_as_picked_from_wherever_a_command_is_called(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pick("micrographs", output="picking/run1")
    before = (tmp_path / "picking" / "run1" / "autopick.star").read_bytes()
    names = ["picking/run1", str(tmp_path / "picking" / "run1"), "picking/../picking/run1"]
    for place, run in [*((".", name) for name in names), ("picking", "run1"), ("picking/run1", ".")]:
        monkeypatch.chdir(tmp_path / place)
        rethreshold(run, 0.2)
        rethreshold(run, None)
        assert (tmp_path / "picking" / "run1" / "autopick.star").read_bytes() == before, (place, run)
    monkeypatch.chdir(tmp_path / "picking")
    write_micrograph(folder_of_discs / "m4.mrc", disc_micrograph("m4", seed=9))
    pick("../micrographs", output="../picking/run1")
    table = read_star(tmp_path / "picking" / "run1" / "autopick.star")["coordinate_files"]
    assert sorted(table.text("rlnMicrographName"))[1:] == [f"micrographs/m{k}.mrc" for k in (1, 2, 4)]
    monkeypatch.chdir(tmp_path)
    assert all(os.path.isfile(path) for path in table.text("rlnMicrographCoordinates"))


def test_a_run_of_version_01_keeps_the_paths_that_its_list_has(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pick(folder_of_discs, output="picking/run1")
    (tmp_path / "picking" / "run1" / "place.json").unlink()
    monkeypatch.chdir(tmp_path / "picking")
    rethreshold("run1", 0.2)
    assert coordinate_paths(tmp_path / "picking" / "run1")[0].startswith("picking/run1/picks/")


@pytest.mark.parametrize("where", ["renamed", "archive/run1", "archive/deeper/run2"])
def test_a_moved_run_lists_where_it_lies_now(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pick("micrographs", output="run1")
    Path(where).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree("run1", where)
    rethreshold(where, 0.2)
    assert all(path.startswith(f"{where}/picks/") and os.path.isfile(path) for path in coordinate_paths(Path(where)))


def test_a_project_that_moves_as_a_whole_keeps_its_paths(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    folder_of_discs.rename(tmp_path / "project" / "micrographs")
    monkeypatch.chdir(tmp_path / "project")
    pick("micrographs", output="picking/run1")
    before = coordinate_paths(Path("picking/run1"))
    (tmp_path / "project").rename(tmp_path / "archive")
    monkeypatch.chdir(tmp_path / "archive" / "picking")
    rethreshold("run1", 0.2)
    assert coordinate_paths(Path("run1")) == before


@pytest.mark.parametrize(
    ("given", "words"), [("", "empty"), ("  ", "empty"), ("$RUNS/run", "shell"), ("~nobody-x/r", "shell")]
)
def test_an_output_that_the_shell_did_not_make_out_is_refused(given: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        output_folder(given)


def test_a_tilde_in_the_output_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_folder("~/run") == tmp_path / "run"


# ---------------------------------------------------------------------------------------------------- hostile names


@pytest.mark.parametrize("name", ["x\\..\\..\\..\\precious.mrc", "a" * 245 + ".mrc", ".cryopick-1.mrc"])
def test_a_name_that_cannot_name_files_fails_alone(folder_of_discs: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "precious.csv").write_text("mine")
    write_micrograph(folder_of_discs / "m1.mrc", disc_micrograph("m1"))
    (folder_of_discs / "m1.mrc").rename(folder_of_discs / name)
    before = sorted(path.name for path in tmp_path.iterdir())
    settings = make_settings("blob", **SETTINGS)
    for _ in range(2):
        summary = pick_to_folder(
            [folder_of_discs / name, folder_of_discs], tmp_path / "deep" / "run", settings, workers=1
        )
        assert list(summary.failed) == [name]
        assert "rename the file" in summary.failed[name]
        assert summary.particles == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "deep"])
    assert (tmp_path / "precious.csv").read_text() == "mine"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]


def test_a_map_whose_picture_has_no_room_for_its_name_costs_only_the_picture(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_pick = pick_one.pick_micrograph
    grey = np.zeros((8, 8), np.float32)

    def with_maps(micrograph: Any, plan: Any, **mask: Any) -> Any:
        return replace(really_pick(micrograph, plan, **mask), maps={"../out": grey, "heat": grey})

    monkeypatch.setattr(pick_one, "pick_micrograph", with_maps)
    summary = pick(folder_of_discs, output=tmp_path / "run")
    assert summary.particles == 9
    assert any("'../out'" in warning for warning in summary.warnings)
    assert sorted(path.name for path in (tmp_path / "run" / "images").glob("m1*")) == ["m1.heat.png", "m1.jpg"]


@pytest.mark.parametrize("name", ["picks", "images", "records", "candidates", "run.log", "autopick.star"])
def test_a_link_out_of_the_run_folder_is_neither_read_nor_written(
    finished: Path, folder_of_discs: Path, tmp_path: Path, name: str
) -> None:
    (finished / name).rename(tmp_path / "elsewhere")
    (finished / name).symlink_to(tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for call in (
        lambda: rethreshold(finished, 0.2),
        lambda: pick(folder_of_discs, output=finished),
        lambda: pick(folder_of_discs, output=finished, overwrite=True),
    ):
        with pytest.raises(RunFolderError, match="leads out of the run folder"):
            call()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_link_deep_in_a_foreign_run_is_not_followed(finished: Path, tmp_path: Path) -> None:
    (finished / "candidates" / "m1.csv").unlink()
    (tmp_path / "secret.csv").write_text("x_px,y_px,score,diameter_px,class_id,reason\n1,2,3,4,0,\n")
    (finished / "candidates" / "m1.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(RunFolderError, match="leads out of the run folder"):
        rethreshold(finished, 0.2)


# ------------------------------------------------------------------------------------------- settings, overwriting


def _write_reference(path: Path, diameter_px: float) -> None:
    y, x = np.mgrid[:64, :64] - 31.5
    write_mrc(path, np.where(np.hypot(x, y) < diameter_px / 2, -1, 0).astype(np.float32)[None])


@pytest.mark.parametrize("is_of_version_01", [False, True])
def test_a_run_does_not_go_on_with_a_file_of_its_settings_that_was_overwritten(
    folder_of_discs: Path, tmp_path: Path, is_of_version_01: bool
) -> None:
    references, run = tmp_path / "references.mrcs", tmp_path / "run"
    _write_reference(references, DIAMETER_PX)
    settings = make_settings("template", references=str(references), **SETTINGS)
    later = folder_of_discs / "later.mrc"
    shutil.copy(next(folder_of_discs.glob("*.mrc")), tmp_path / "kept.mrc")
    pick(folder_of_discs, output=run, settings=settings)
    if is_of_version_01:
        (run / "files.json").unlink()
        pick(folder_of_discs, output=run, settings=settings)
    shutil.copy(tmp_path / "kept.mrc", later)
    _write_reference(references, 2 * DIAMETER_PX)
    with pytest.raises(RunFolderError, match=r"references \(.*\) was overwritten"):
        pick(folder_of_discs, output=run, settings=settings)
    _write_reference(references, DIAMETER_PX)  # as it was
    assert pick(folder_of_discs, output=run, settings=settings).micrographs == 4
    _write_reference(references, 2 * DIAMETER_PX)
    assert pick(folder_of_discs, output=run, settings=settings, overwrite=True).micrographs == 4


@pytest.mark.parametrize("change", ["replaced", "appeared", "went"])
def test_a_micrograph_whose_exclusion_mask_changed_is_picked_again(
    folder_of_discs: Path, tmp_path: Path, change: str
) -> None:
    masks, run, names = tmp_path / "masks", tmp_path / "run", sorted(folder_of_discs.glob("*.mrc"))
    masks.mkdir()
    shape = read_micrograph(names[0]).shape_yx
    nothing, everything = np.zeros(shape, dtype=np.uint8), np.full(shape, 255, dtype=np.uint8)
    everything[:2] = 0
    first, other = masks / f"{names[0].stem}.png", masks / f"{names[1].stem}.png"
    cv2.imwrite(str(other), nothing)
    if change != "appeared":
        cv2.imwrite(str(first), nothing)
    settings = make_settings("blob", exclusion_masks=masks, **SETTINGS)
    before = pick(folder_of_discs, output=run, settings=settings).particles
    if change == "went":
        first.unlink()
    else:
        cv2.imwrite(str(first), everything)
        os.utime(first, ns=(1, 1))
    events: list[PickEvent] = []
    summary = pick(folder_of_discs, output=run, settings=settings, events=events)
    assert picked(events) == [names[0].name]
    assert (summary.particles < before) == (change != "went")
    events.clear()
    pick(folder_of_discs, output=run, settings=settings, events=events)
    assert picked(events) == []


def test_a_setting_that_stops_everything_can_be_corrected(folder_of_discs: Path, tmp_path: Path) -> None:
    wrong = make_settings("general", weights=str(tmp_path / "typo.safetensors"), diameter="20px")
    with pytest.raises(WeightsError):
        pick(folder_of_discs, output=tmp_path / "run", settings=wrong)
    assert not (tmp_path / "run").exists()
    wide = make_settings("blob", diameter="9000px")
    with pytest.raises(SettingsError):
        pick(folder_of_discs, output=tmp_path / "run", settings=wide)
    assert pick(folder_of_discs, output=tmp_path / "run").particles == 9
    assert "replaced by those of now" in (tmp_path / "run" / "run.log").read_text()


def test_a_new_run_that_comes_to_nothing_leaves_the_one_it_would_replace(
    finished: Path, folder_of_discs: Path, tmp_path: Path
) -> None:
    def files() -> dict[str, bytes]:
        return {p.as_posix(): p.read_bytes() for p in finished.rglob("*") if p.is_file() and p.name != "run.log"}

    before = files()
    wrong = make_settings("blob", diameter="1px")
    with pytest.raises(SettingsError):
        pick(folder_of_discs, output=finished, settings=wrong, overwrite=True)
    assert files() == before
    assert pick(folder_of_discs, output=finished).particles == 9


@pytest.mark.parametrize("moved", [1, 4, 99])
def test_a_kill_while_a_run_is_moved_aside_loses_nothing(
    finished: Path, folder_of_discs: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    class Killed(BaseException):
        pass

    rename, count = Path.rename, []

    def rename_until(self: Path, target: Any) -> Path:
        count.append(1)
        if len(count) > moved:
            raise Killed
        return rename(self, target)

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    with monkeypatch.context() as killing:
        killing.setattr(Path, "rename", rename_until)
        killing.setattr(RunFolder, "write", killed)
        killing.setattr(RunFolder, "restore_replaced", lambda _: False)
        with pytest.raises(Killed):
            pick(folder_of_discs, output=finished, overwrite=True)
    events: list[PickEvent] = []
    assert pick(folder_of_discs, output=finished, events=events).particles == 9
    assert picked(events) == []
    assert not [path for path in finished.iterdir() if path.name.startswith(".repl")]


def test_overwriting_where_a_folder_is_not_writable_removes_nothing(
    finished: Path, folder_of_discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    access = os.access  # asked in place of the file system, in which root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "grid two" and access(path, mode))
    with pytest.raises(RunFolderError, match="nothing was removed"):
        pick(folder_of_discs, output=finished, overwrite=True)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_setting_that_an_older_version_did_not_know_has_its_default(finished: Path, folder_of_discs: Path) -> None:
    config = finished / "config.toml"
    older = "".join(line for line in config.read_text().splitlines(keepends=True) if not line.startswith("keep_junk"))
    assert older != config.read_text()
    config.write_text(older)
    events: list[PickEvent] = []
    pick(folder_of_discs, output=finished, events=events)
    assert picked(events) == []
    with pytest.raises(RunFolderError, match="run keep_junk: false -> true"):
        pick(folder_of_discs, output=finished, settings=make_settings("blob", keep_junk=True, **SETTINGS))


def test_no_setting_that_may_be_unset_has_another_default() -> None:
    """Config files leave out what is not set, so only then can a missing setting mean its default."""
    from typing import get_args

    from cryopick.geometry.selection import SelectionSettings
    from cryopick.pickers.registry import list_pickers, picker_class
    from cryopick.runs.settings import RunSettings
    from cryopick.settings import settings_of

    for part in (RunSettings, SelectionSettings, *map(picker_class, list_pickers())):
        for setting in settings_of(part):
            assert type(None) not in get_args(setting.annotation) or setting.default is None, setting.name


def test_masks_given_by_a_path_from_elsewhere_are_the_same(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    (tmp_path / "masks").mkdir()
    for name in ("m1", "m2", "m3 é"):
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), np.eye(8, dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    pick("micrographs", output="run", settings=make_settings("blob", exclusion_masks="masks", **SETTINGS))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    rethreshold("../run", 0.2)
    events: list[PickEvent] = []
    again = make_settings("blob", exclusion_masks="../masks", **SETTINGS)
    pick("../micrographs", output="../run", settings=again, events=events)
    assert picked(events) == []


# --------------------------------------------------------------------------------------------------------- many


class CountedName(str):
    """A name that counts how often it is looked up."""

    lookups = 0

    def __hash__(self) -> int:
        CountedName.lookups += 1
        return super().__hash__()


def test_the_work_of_resuming_grows_with_the_number_of_micrographs_and_no_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryopick.io.inputs.sources import MicrographSource
    from cryopick.runs import run as run_module
    from cryopick.runs.workers import Workforce

    monkeypatch.setattr(run_module, "run_all", lambda *_, **__: iter(()))
    monkeypatch.setattr(run_module.Run, "_read_back", lambda *_: None, raising=False)
    counts = []
    for total in (50, 200):
        sources = [MicrographSource(tmp_path / f"{k}.mrc", CountedName(f"{k}.mrc")) for k in range(total)]
        CountedName.lookups = 0
        with RunFolder(tmp_path / f"run{total}").lock():
            one = run_module.Run(RunFolder(tmp_path / f"run{total}"), sources, make_settings("blob", **SETTINGS), None)
            one.skipped = list(one.sources)
            one.pick(Workforce(workers=1))
        counts.append(CountedName.lookups)
    assert counts[1] <= 4.5 * counts[0]


@pytest.mark.parametrize("setting", ["exclusion_masks", "weights"])
def test_a_path_in_settings_that_no_file_system_can_hold_is_refused_in_words(setting: str) -> None:
    with pytest.raises((SettingsError, WeightsError)):
        require_weights(make_settings("general", **{setting: "a" * 300}))


@pytest.mark.parametrize("reads", ["convert", "evaluate", "rethreshold", "finetune"])
def test_a_record_that_was_deleted_is_missed_aloud(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, reads: str
) -> None:
    from cryopick.evaluation.scored_sets import read_picked_set
    from cryopick.runs.picks import labels_of_run_at
    from cryopick.workflows.convert import convert

    read = {
        "convert": lambda: convert(finished, tmp_path / "out.csv"),
        "evaluate": lambda: read_picked_set(finished),
        "rethreshold": lambda: rethreshold(finished, 4.5),
        "finetune": lambda: labels_of_run_at(finished),
    }[reads]
    next((finished / "records").glob("*.json")).unlink()
    read()
    assert "tables are of 3 micrographs and 2 of their records are there" in caplog.text


def test_picks_of_a_micrograph_that_was_deleted_stay_aloud(finished: Path, folder_of_discs: Path) -> None:
    assert pick(folder_of_discs / "m1.mrc", output=finished).warnings == {}  # given less, and all is there
    (folder_of_discs / "m2.mrc").unlink()
    summary = pick(folder_of_discs, output=finished)
    assert summary.particles == 9
    assert any("their files are gone, such as m2.mrc" in warning for warning in summary.warnings)
