"""Stages are made once, whole or not at all, and again where they no longer hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cryopick.workflows.validate3d.stages import StageFolder


class Maker:
    """Makes a stage of two files and counts how often."""

    def __init__(self, text: str = "one") -> None:
        self.calls, self.text, self.seen = 0, text, []

    def __call__(self, folder: Path) -> dict[str, int]:
        self.calls += 1
        self.seen = sorted(path.name for path in folder.iterdir())
        (folder / "a.txt").write_text(self.text)
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep/b.txt").write_text("two")
        return {"calls": self.calls}


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path, log: list[str]) -> StageFolder:
    return StageFolder(tmp_path, log.append)


def test_a_finished_stage_is_not_made_again(folder: StageFolder, log: list[str]) -> None:
    make = Maker()
    first = folder.stage("run/Extract", {"box": 84}, make)
    second = folder.stage("run/Extract", {"box": 84}, make)
    assert make.calls == 1
    assert (first.was_made, second.was_made) == (True, False)
    assert (second.facts, second.digest) == (first.facts, first.digest)
    assert (second.folder / "deep/b.txt").read_text() == "two"
    assert log == ["run/Extract: made"]


def test_a_changed_input_makes_it_again_and_is_named(folder: StageFolder, log: list[str]) -> None:
    make = Maker()
    folder.stage("run/Extract", {"box": 84, "seed": 1}, make)
    folder.stage("run/Extract", {"box": 90, "seed": 1}, make)
    assert make.calls == 2
    assert log[-1] == "run/Extract: made again, since box changed"


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda at: (at / "a.txt").write_text("0ne"), "since a.txt is damaged"),
        (lambda at: (at / "deep/b.txt").unlink(), "since deep/b.txt is missing"),
        (lambda at: (at / "done.json").unlink(), "its done.json is missing"),
        (lambda at: (at / "done.json").write_text("{"), "its done.json is damaged"),
        (lambda at: (at / "done.json").write_text("{}"), "its done.json is damaged"),
    ],
)
def test_one_damaged_file_costs_its_stage(folder: StageFolder, log: list[str], damage, why: str) -> None:
    make, other = Maker(), Maker()
    for _ in range(2):
        done = folder.stage("run/Extract", {"box": 84}, make)
        folder.stage("run/Refine", {"extract": done.digest}, other)
        if make.calls == 1:
            damage(done.folder)
    assert (make.calls, other.calls) == (2, 1)
    assert log[-1] == f"run/Extract: made again, {why}"
    assert json.loads((folder.root / "run/Extract/done.json").read_text())["facts"] == {"calls": 2}


def test_what_a_killed_call_left_is_removed_unless_the_stage_can_go_on(folder: StageFolder) -> None:
    def killed(at: Path) -> None:
        (at / "iteration1.txt").write_text("half")
        raise KeyboardInterrupt

    for can_go_on in (False, True):
        name, make = f"run/{can_go_on}", Maker()
        with pytest.raises(KeyboardInterrupt):
            folder.stage(name, {"box": 84}, killed)
        assert not (folder.root / name).exists()
        folder.stage(name, {"box": 84}, make, can_go_on=can_go_on)
        assert ("iteration1.txt" in make.seen) == can_go_on


def test_work_on_other_inputs_is_not_gone_on_with(folder: StageFolder) -> None:
    def killed(at: Path) -> None:
        (at / "iteration1.txt").write_text("half")
        raise KeyboardInterrupt

    make = Maker()
    with pytest.raises(KeyboardInterrupt):
        folder.stage("run/Refine", {"seed": 1}, killed)
    folder.stage("run/Refine", {"seed": 2}, make, can_go_on=True)
    assert "iteration1.txt" not in make.seen
