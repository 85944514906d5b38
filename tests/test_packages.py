"""What is handed out: wheel and source archive hold what they must and nothing else; the recipes say what is so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from cryopick.version import __version__

ROOT = Path(__file__).parents[1]
LARGEST_MB = 40
CONDA_NAMES = {
    "torch": "pytorch",
    "torchvision": "torchvision",
    "opencv-python-headless": "py-opencv",
    "lazy-loader": "lazy_loader",
    "matplotlib": "matplotlib-base",
}
"""What conda-forge calls packages that it calls otherwise than the index of Python."""


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was made from it."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a checkout of git, whose files are what is handed out")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_both_are_small_and_named_by_the_one_version(built: Path) -> None:
    names = sorted(path.name for path in built.iterdir())
    assert names == [f"cryopick-{__version__}-py3-none-any.whl", f"cryopick-{__version__}.tar.gz"]
    assert max(path.stat().st_size for path in built.iterdir()) < LARGEST_MB * 1e6


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z", "src"], cwd=ROOT, capture_output=True, text=True, check=True)
    package = {name.removeprefix("src/") for name in filter(None, listed.stdout.split("\0")) if (ROOT / name).is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == package
    assert {"cryopick/py.typed", "cryopick/weights/general.safetensors"} <= held


def test_the_source_archive_holds_what_the_wheel_is_made_of_and_no_results_or_tests(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        tops = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    texts = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO", ".gitignore"}
    assert tops == {"src", *texts}


def test_the_wheel_says_who_made_it_what_it_needs_and_how_it_is_called(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    info = f"cryopick-{__version__}.dist-info"
    told = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert (told["Name"], told["Version"], told["License-Expression"]) == ("cryopick", __version__, "BSD-3-Clause")
    assert "The cryopick developers" in (told["Author"] or told["Author-email"])
    assert told["Description-Content-Type"] == "text/markdown"
    needed = {re.split(r"[\[<>=~; ]", need)[0] for need in told.get_all("Requires-Dist") if "extra ==" not in need}
    assert needed == {re.split(r"[\[<>=~; ]", need)[0] for need in project()["dependencies"]}
    assert "cryopick = cryopick.cli.main:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert f"{info}/licenses/LICENSE" in archive.namelist()


def test_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import cryopick, sys; print(cryopick.__file__); from cryopick.cli.main import main; "
        "sys.argv = ['cryopick', 'pickers', 'blob']; main()"
    )
    there = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=there, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout.splitlines()[0]
    assert "--diameter" in done.stdout


def test_the_citation_names_the_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["license"] == project()["license"]


def test_the_conda_recipe_asks_for_what_the_project_needs_in_the_same_version() -> None:
    recipe = yaml.safe_load((ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == __version__
    asked = dict(need.split(" ", 1) if " " in need else (need, "") for need in recipe["requirements"]["run"])
    expected = {}
    for need in project()["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)([^;]*)(?:;.*)?", need).groups()
        expected.setdefault(CONDA_NAMES.get(name, name), bounds)  # a solver knows what fits newer Pythons
    assert {**expected, "python": project()["requires-python"]} == asked
    assert recipe["tests"][0]["script"] == ["cryopick --version", "cryopick doctor --help"]


def test_both_container_files_run_the_same_commands() -> None:
    docker = (ROOT / "packaging" / "Dockerfile").read_text(encoding="utf-8")
    apptainer = (ROOT / "packaging" / "cryopick.def").read_text(encoding="utf-8")
    runs = [line.removeprefix("RUN ") for line in docker.splitlines() if line.startswith("RUN ")]
    post = apptainer.split("%post\n")[1].split("\n\n")[0]
    assert [line.strip() for line in post.splitlines()] == runs
    base = re.compile(r"^(?:FROM|From:) (\S+)$", re.MULTILINE)
    assert base.findall(docker) == base.findall(apptainer) != []
    for name in re.findall(r"^COPY (.*) /source", docker, re.MULTILINE):
        assert all((ROOT / one).exists() for one in name.split())


def test_licences_of_what_is_installed_let_everybody_use_it() -> None:
    from made_licences import licences_page

    rows = re.findall(r"^\| ([\w.-]+) \| \S+ \| (.*) \|$", licences_page(), flags=re.MULTILINE)
    assert len(rows) > 30
    copyleft = re.compile(r"(?<!L)GPL")
    assert [row for row in rows if copyleft.search(row[1]) and " OR " not in row[1]] == []
