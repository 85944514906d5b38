"""The tutorials, walked from an empty folder: no step that is not on the page, and every printed line that it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_trainings import CROPS, ONE_STEP
from walked import WALKED, blocks_of, walk

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def walked_first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which the first tutorial was walked, as it stands; and lines that it shows and nothing printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    return folder, walk(DOCS / "tutorial-pick.md", folder)


def test_the_first_tutorial_works_as_printed_and_prints_what_it_shows(walked_first: tuple[Path, list[str]]) -> None:
    folder, missing = walked_first
    assert missing == []
    assert (folder / "run1" / "report.html").is_file()
    assert len(list((folder / "boxes").glob("*.box"))) == 8


def test_the_tutorial_on_teaching_works_with_one_step_and_smaller_images(tmp_path: Path) -> None:
    def changed(line: str) -> str:
        if line.startswith("cryopick finetune"):
            return f"{line} {ONE_STEP} {CROPS}"
        return line.replace("--count 12 --size 1024x1024", "--count 6 --size 512x512")

    missing = walk(DOCS / "tutorial-finetune.md", tmp_path, changed=changed)
    assert missing == []
    assert (tmp_path / "compared" / "comparison.html").is_file()


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed; scripts/relion installs it")
def test_relion_takes_the_picks_of_the_first_tutorial_to_classes(walked_first: tuple[Path, list[str]]) -> None:
    folder, _ = walked_first
    missing = walk(
        DOCS / "tutorial-relion.md", folder, changed=lambda line: line.replace("--iter 15 --K 4", "--iter 1 --K 2")
    )
    assert missing == []
    assert (folder / "session" / "Class2D" / "cryopick" / "run_it001_classes.mrcs").is_file()


def test_every_walked_page_holds_commands() -> None:
    for name in WALKED:
        lines = [line for block in blocks_of(DOCS / name) if not block.language for line in block.lines]
        assert [line for line in lines if line.startswith("cryopick ")], name
