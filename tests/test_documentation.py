"""What the documentation shows is what the program does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cryopick.cli.main import COMMANDS
from cryopick.pickers.catalogue import with_current_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_table_of_pickers_in_the_readme_is_current() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == with_current_table(readme), "run `make docs`, or python -m cryopick.pickers.catalogue README.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    made = ("reference/", "gallery/")  # pages that the site makes; `test_site.py` follows these links
    there = [link for link in links if "://" not in link and not link.startswith(made)]
    assert [link for link in there if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:^|`)cryopick ([a-z][a-z0-9]*(?:-[a-z]+)*)", text, flags=re.MULTILINE))
    # CITATION and prose also say "cryopick finds"; only lines of code and inline code are looked at
    unknown = {word for word in shown if word not in COMMANDS} - {"finds"}
    assert unknown == set()


@pytest.mark.parametrize(
    ("script", "made"),
    [
        ("pick_an_array.py", ["picks.png", "sample_picks.star"]),
        ("pick_a_folder.py", ["run/report.html", "run/autopick.star"]),
        ("facility_service.py", ["External/job012/autopick.star"]),
    ],
)
def test_every_example_runs_as_it_is(script: str, made: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", ROOT / "examples" / script, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [name for name in made if not (tmp_path / "out" / name).is_file()] == []


def test_no_example_is_left_out_of_the_tests() -> None:
    examples = ["facility_service.py", "pick_a_folder.py", "pick_an_array.py"]
    assert sorted(path.name for path in (ROOT / "examples").glob("*.py")) == examples
