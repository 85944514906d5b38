"""A renamed micrograph counts once, and a run that grew calls its files as one that was given all at once does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import RunFolderError
from cryopick.io.images.micrographs import write_micrograph
from cryopick.io.inputs.sources import find_micrographs
from cryopick.runs import renames
from cryopick.runs.folder import RunFolder
from cryopick.runs.results import RunSummary
from cryopick.runs.run import PickEvent, Run
from cryopick.runs.settings import make_settings
from cryopick.workflows.evaluate import evaluate
from cryopick.workflows.pick import pick_to_folder

TIMED = ("run.log", "summary.json", "micrographs.star", "report.html", ".lock", "command.txt")
"""Files that hold durations, times of day or the folder's name."""


def settings() -> Any:
    return make_settings("blob", diameter=f"{DIAMETER_PX}px")


def pick(given: Path, run: Path, events: list[PickEvent] | None = None) -> RunSummary:
    return pick_to_folder([given], run, settings(), workers=1, on_event=None if events is None else events.append)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_micrograph(path, disc_micrograph(path.name, seed=seed))


def contents(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and name not in TIMED:
            text = path.read_bytes().replace(str(run).encode(), b"RUN")
            found[name] = json.loads(text) | {"seconds": 0} if name.startswith("records/") else text
    return found


def names(run: Path) -> list[str]:
    return [record.name for record in RunFolder(run).records()]


# ---------------------------------------------------------------------------------------------- renamed micrographs


def test_a_renamed_micrograph_counts_once(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    before = pick(folder_of_discs, run)
    (folder_of_discs / "m1.mrc").rename(folder_of_discs / "better.mrc")
    events: list[PickEvent] = []
    after = pick(folder_of_discs, run, events)
    assert (after.micrographs, after.particles) == (before.micrographs, before.particles) == (3, 9)
    assert [event.name for event in events if event.status == "done"] == ["better.mrc"]
    assert "m1.mrc: was renamed to " in (run / "run.log").read_text()
    pick(folder_of_discs, tmp_path / "anew")
    assert contents(run) == contents(tmp_path / "anew")


def test_a_link_or_a_copy_is_another_micrograph_and_a_file_that_is_gone_keeps_its_picks(
    folder_of_discs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run)
    os.link(folder_of_discs / "m1.mrc", folder_of_discs / "link.mrc")
    shutil.copy2(folder_of_discs / "m2.mrc", folder_of_discs / "copy.mrc")
    (folder_of_discs / "m2.mrc").unlink()  # as a copy of the same time stays, but is another file
    assert pick(folder_of_discs, run).micrographs == 5
    assert "m2.mrc" in names(run)


def test_a_call_that_is_killed_while_it_drops_what_was_renamed_is_repeated(
    folder_of_discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run)
    (folder_of_discs / "m1.mrc").rename(folder_of_discs / "better.mrc")

    def killed(self: RunFolder, key: str, maps: Any) -> None:
        self.picks_path(key).unlink()
        self.candidates_path(key).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove_results", killed)
        with pytest.raises(KeyboardInterrupt):
            pick(folder_of_discs, run)
    pick(folder_of_discs, run)
    pick(folder_of_discs, tmp_path / "anew")
    assert contents(run) == contents(tmp_path / "anew")


def test_records_of_older_runs_say_no_inode_and_stay(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run)
    record = run / "records" / "m1.json"
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "inode"}))
    (folder_of_discs / "m1.mrc").rename(folder_of_discs / "better.mrc")
    assert pick(folder_of_discs, run).micrographs == 4


# ------------------------------------------------------------------------------------------------------- grown runs


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, Path]:
    """A project of two jobs with micrographs of one name, and a run that saw the second job later."""
    project, run = tmp_path / "project", tmp_path / "run"
    draw(project / "MotionCorr/job002/x.mrc", 1)
    draw(project / "MotionCorr/job002/y.mrc", 2)
    pick(project, run)
    draw(project / "MotionCorr/job003/x.mrc", 3)
    pick(project, run)
    assert sorted(one.key for one in RunFolder(run).records()) == ["MotionCorr/job003/x.mrc", "x", "y"]
    return project, run


def settle(project: Path, run: Path) -> list[str]:
    """As the end of a run that is followed."""
    folder = RunFolder(run)
    with folder.lock():
        folder.clean_up()
        one = Run(folder, find_micrographs([project]), settings(), None)
        one.look_first()
        renamed = one.assign_keys_anew()
        one.pick(1)
        one.finish()
    return renamed


def test_a_run_that_grew_ends_with_the_names_of_a_batch_run(grown: tuple[Path, Path], tmp_path: Path) -> None:
    project, run = grown
    pick(project, tmp_path / "batch")
    assert contents(run) != contents(tmp_path / "batch")
    assert settle(project, run) == ["MotionCorr/job002/x.mrc"]
    assert contents(run) == contents(tmp_path / "batch")
    assert not [path for path in run.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert settle(project, run) == []


@pytest.mark.parametrize("step", range(7))  # four files, a record that is written, one that is removed, the note
def test_it_may_be_killed_at_any_step(
    step: int, grown: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, run = grown
    calls = iter(range(100))

    def killed_before(do: Callable[..., Any]) -> Callable[..., Any]:
        def one(*given: Any, **options: Any) -> Any:
            if (run / renames.RENAMING).exists() and next(calls) == step:
                raise KeyboardInterrupt
            return do(*given, **options)

        return one

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed_before(Path.replace))
        patch.setattr(Path, "unlink", killed_before(Path.unlink))
        patch.setattr(renames, "record_text", killed_before(renames.record_text))
        with pytest.raises(KeyboardInterrupt):
            settle(project, run)
    assert (run / renames.RENAMING).exists()
    with pytest.raises(RunFolderError, match="was interrupted"):
        evaluate(run, run / "particles.star")
    settle(project, run)
    pick(project, tmp_path / "batch")
    assert contents(run) == contents(tmp_path / "batch")


def test_keys_that_are_exchanged_are_renamed_too(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run)
    folder = RunFolder(run)
    before = contents(run)
    keys = {"m1": "m2", "m2": "m1"}
    with folder.lock():
        renames.rename_keys(folder, keys)
        found = {record.name: record.key for record in folder.records()}
        assert (found["m1.mrc"], found["m2.mrc"]) == ("m2", "m1")
        assert (run / "candidates/m2.csv").read_bytes() == before["candidates/m1.csv"]
        renames.rename_keys(folder, keys)
        folder.end_tables()
    assert contents(run) == before


def test_a_damaged_or_hostile_note_of_renaming_renames_nothing(folder_of_discs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pick(folder_of_discs, run)
    before = contents(run)
    for text in ('{"m1": "../out"}', '{"m1": 3}', "[1]", "{"):
        (run / renames.RENAMING).write_text(text)
        pick(folder_of_discs, run)
        assert not (run / renames.RENAMING).exists()
        assert contents(run) == before
