"""The command line: options come from the settings, output is for people or for programs, errors are one line."""

from __future__ import annotations

import importlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import typer
from called import cryopick
from discs import DIAMETER_PX, disc_micrograph

from cryopick.cli.main import COMMANDS
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.registry import list_pickers, picker_class
from cryopick.settings import settings_of
from cryopick.simulation.sample import make_sample
from cryopick.types import Micrograph


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for seed in range(2):
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    return tmp_path / "in"


def test_help_costs_less_than_half_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", "cryopick.cli.main", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Pick particles" in done.stdout
    # processor time, which other programs on the machine do not lengthen as they do the time on the clock
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_help_of_the_program_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['cryopick', '--help']\n"
        "from cryopick.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'scipy', 'cv2', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_new_command_is_one_file_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cryopick.cli.greet")
    module.command = lambda name: typer.echo(f"hello {name}")  # type: ignore[attr-defined]
    module.command.__annotations__ = {"name": str}
    monkeypatch.setitem(sys.modules, "cryopick.cli.greet", module)
    monkeypatch.setitem(COMMANDS, "greet", "Greet somebody.")
    assert "Greet somebody." in cryopick("--help").stdout
    assert cryopick("greet", "you").stdout == "hello you\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_importing_a_command_reads_no_arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "argv")
    module = importlib.reload(importlib.import_module(f"cryopick.cli.{name.replace('-', '_')}"))
    assert hasattr(module, "command") != hasattr(module, "command_for")


@pytest.mark.parametrize("name", list_pickers())
def test_every_setting_of_a_picker_is_an_option_and_is_listed(name: str) -> None:
    shown = cryopick("pick", "--picker", name, "--help").stdout
    listed = cryopick("pickers", name).stdout
    for setting in settings_of(picker_class(name)):
        assert setting.flag in shown
        assert setting.flag in listed


def test_pickers_lists_every_picker() -> None:
    lines = cryopick("pickers").stdout.splitlines()
    assert [line.split()[0] for line in lines[: len(list_pickers())]] == list_pickers()


def test_a_run_prints_the_count_and_where_to_go_on(micrographs: Path, tmp_path: Path) -> None:
    done = cryopick("pick", micrographs, "-o", "run", "--picker", "blob", "-d", f"{DIAMETER_PX}px", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("6 particles in 2 micrographs, score ")
    assert "run/autopick.star" in done.stdout
    assert (
        tmp_path / "run" / "command.txt"
    ).read_text() == f"cryopick pick {micrographs} -o run --picker blob -d {DIAMETER_PX}px\n"


def test_of_noise_nothing_is_promised(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(size=(600, 600)).astype(np.float32)
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", Micrograph(noise))
    done = cryopick("pick", "in", "-o", "run", cwd=tmp_path)
    first, verdicts, second, third, *_ = done.stdout.splitlines()
    assert first.startswith("0 particles in 3 micrographs")
    assert verdicts.startswith("verdicts: 0 good, 3 empty")
    assert second.startswith("nothing looks like a particle at any size; --diameter searches for one")
    assert "the picker found nothing that looks like one" in third
    assert "expected" not in done.stdout  # no pick, no precision
    assert "box" not in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["expected_precision"] is None
    assert "suggested box" not in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_keeps_nothing_says_what_became_of_its_candidates(micrographs: Path, tmp_path: Path) -> None:
    options = ("--picker", "blob", "-d", f"{DIAMETER_PX}px", "--threshold", "1000")
    done = cryopick("pick", micrographs, "-o", "run", *options, cwd=tmp_path)
    count = json.loads((tmp_path / "run" / "summary.json").read_text())["candidates"]
    assert done.stdout.startswith("0 particles in 2 micrographs")
    assert f"all {count} candidates stay with their scores: cryopick rethreshold run --threshold ..." in done.stdout
    why = f"no particle is kept at a threshold of 1000: of {count} candidates "
    assert why in done.stdout
    assert "below threshold" in done.stdout
    assert why in (tmp_path / "run" / "report.html").read_text()
    best = json.loads((tmp_path / "run" / "summary.json").read_text())["best_score"]
    advised = done.stdout.split("so --threshold ")[1].split()[0]
    assert 0.9 * best < float(advised) <= best
    again = cryopick("rethreshold", "run", "--threshold", advised, cwd=tmp_path)
    assert again.returncode == 0
    assert not again.stdout.startswith("0 particles")


def test_a_radius_for_the_diameter_and_a_tenfold_pixel_size_are_told_once_and_beside_the_box(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for micrograph, _ in make_sample(2, shape_yx=(512, 512)):  # 140 Å, 2 Å per pixel
        write_micrograph(tmp_path / "in" / micrograph.name, micrograph)
    done = cryopick("pick", "in", "-o", "run", "-d", "700A", "--pixel-size", "20", cwd=tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (doubt,) = [text for text in summary["warnings"] if "does not fit what is seen" in text]
    assert "the radius was given" in doubt
    (size,) = [text for text in summary["warnings"] if text.startswith("--pixel-size says 20 Å per pixel")]
    assert "ten times as much" in size
    report = (tmp_path / "run" / "report.html").read_text()
    for told in (doubt, size):
        assert summary["warnings"][told] == 2
        assert done.stderr.count(told) == 1
        assert told in report
    assert summary["box_doubt"].startswith("the box is for the given diameter; particles look about 1")
    lines = done.stdout.splitlines()
    box = next(number for number, line in enumerate(lines) if "suggested box" in line)
    assert lines[box + 1] == f"doubtful: {summary['box_doubt']}"
    assert "does not fit" not in (tmp_path / "run" / "micrographs.star").read_text()  # of the run, not of one of them


def test_nothing_is_doubted_where_diameter_pixel_size_and_contrast_are_right(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    micrograph, _ = make_sample(1, shape_yx=(512, 512))[0]
    write_micrograph(tmp_path / "in" / "m.mrc", micrograph)
    cryopick("pick", "in", "-o", "run", "-d", "140A", "--pixel-size", "2", cwd=tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["warnings"] == {}
    assert summary["box_doubt"] == ""
    assert summary["particles"] > 5


def test_a_run_without_candidates_says_that_nothing_looks_like_a_particle(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    blank = Micrograph(np.ones((120, 160), np.float32), pixel_size_angstrom=2.0)
    write_micrograph(tmp_path / "in" / "m.mrc", blank)
    done = cryopick("pick", "in", "-o", "run", "--picker", "blob", "-d", f"{DIAMETER_PX}px", cwd=tmp_path)
    assert "no particle is kept: the picker found nothing that looks like one" in done.stdout


def test_json_mode_prints_one_object_per_micrograph_and_one_for_the_run(micrographs: Path, tmp_path: Path) -> None:
    done = cryopick("pick", micrographs, "-o", tmp_path / "run", "--picker", "blob", "-d", f"{DIAMETER_PX}px", "--json")
    first, *events, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event["event"], event["status"], event["count"]) for event in events] == [("micrograph", "done", 3)] * 2
    assert {name: value for name, value in first.items() if name != "settings"} == {
        "event": "start",
        "total": 2,
        "output": str(tmp_path / "run"),
    }
    assert first["settings"]["blob"]["diameter"] == f"{DIAMETER_PX}px"
    assert (last["event"], last["particles"]) == ("run", 6)


def test_the_config_of_a_run_repeats_it_and_options_win_over_it(micrographs: Path, tmp_path: Path) -> None:
    options = ("--picker", "blob", "-d", f"{DIAMETER_PX}px", "--max-count", "2")
    assert cryopick("pick", micrographs, "-o", tmp_path / "a", *options).returncode == 0
    again = cryopick("pick", micrographs, "-o", tmp_path / "b", "--config", tmp_path / "a" / "config.toml")
    assert again.stdout.startswith("4 particles")
    assert (tmp_path / "a" / "config.toml").read_bytes() == (tmp_path / "b" / "config.toml").read_bytes()
    won = cryopick(
        *("pick", micrographs, "-o", tmp_path / "c", "--config", tmp_path / "a" / "config.toml", "--max-count", "1")
    )
    assert won.stdout.startswith("2 particles")


def test_rethreshold_and_reset(micrographs: Path, tmp_path: Path) -> None:
    cryopick("pick", micrographs, "-o", tmp_path / "run", "--picker", "blob", "-d", f"{DIAMETER_PX}px")
    assert cryopick("rethreshold", tmp_path / "run", "--threshold", "1e6").stdout.startswith("0 particles")
    assert cryopick("rethreshold", tmp_path / "run", "--reset").stdout.startswith("6 particles")
    assert cryopick("rethreshold", tmp_path / "run").returncode == 4


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["pick", "nowhere", "-o", "run"], "nowhere: no such file or folder", 5),
        (["pick", "in", "-o", "run", "-d", "20 parsec"], "parsec", 4),
        (["pick", "in", "-o", "run", "--picker", "magic"], "unknown picker 'magic'; known pickers: ", 4),
        (["pick", "in", "-o", "run", "--picker", "blob"], "diameter", 4),
        (["pick", "in", "-o", "run", "-d", "20px", "--contrast", "grey"], "dark|bright", 4),
        (["pick", "empty", "-o", "run", "-d", "20px"], "no micrographs found", 5),
        (["rethreshold", "in", "-t", "1"], "no run folder", 5),
        (["pickers", "magic"], "known pickers", 4),
    ],
)
def test_a_mistake_gets_one_line_that_names_it_and_the_exit_code_of_its_kind(
    micrographs: Path, tmp_path: Path, arguments: list[str], words: str, code: int
) -> None:
    (tmp_path / "empty").mkdir()
    done = cryopick(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("cryopick: ")


def test_an_option_of_another_picker_is_an_error(micrographs: Path, tmp_path: Path) -> None:
    done = cryopick("pick", micrographs, "-o", tmp_path / "run", "--no-such-option", "3")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_doctor_picks_a_sample_and_is_content(tmp_path: Path) -> None:
    done = cryopick("doctor", tmp_path)
    for picker in ("blob", "general"):
        assert f"{picker} picked a sample" in done.stdout
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "all well"


def test_doctor_names_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    done = cryopick("doctor", tmp_path / "missing")
    assert done.returncode == 1
    assert "missing" in done.stderr


# ---------------------------------------------------------------------------------------------------- some failed


def test_failures_are_told_at_the_end_and_can_set_the_exit_code(micrographs: Path, tmp_path: Path) -> None:
    (micrographs / "cut.mrc").write_bytes(b"no image")
    words = ("pick", micrographs, "-o", tmp_path / "run", "--picker", "blob", "-d", f"{DIAMETER_PX}px", "-j", "1")
    for option, code in (((), 0), (("--fail-on", "all"), 0), (("--fail-on", "any"), 1)):
        done = cryopick(*words, *option)
        assert done.returncode == code, done.stderr
        assert "1 of 3 micrographs could not be picked, the first: cut.mrc" in done.stderr
        assert "6 particles" in done.stdout


def test_a_tilde_that_the_shell_left_is_the_home_folder(
    micrographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = cryopick("pick", micrographs, "--output=~/run", "--picker", "blob", "-d", f"{DIAMETER_PX}px", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "run" / "particles.star").is_file()
    assert str(tmp_path / "home" / "run" / "report.html") in done.stdout
    assert not (tmp_path / "~").exists()


def test_an_empty_output_is_refused(micrographs: Path, tmp_path: Path) -> None:
    done = cryopick("pick", micrographs, "-o", "", "--picker", "blob", "-d", f"{DIAMETER_PX}px", cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (4, [micrographs])
    assert "--output is empty" in done.stderr


def test_doctor_knows_every_shipped_weights_file() -> None:
    from cryopick.cli.doctor import SHIPPED_WEIGHTS
    from cryopick.io.weights import PACKAGE_WEIGHTS

    assert sorted(path.stem for path in PACKAGE_WEIGHTS.glob("*.safetensors")) == sorted(SHIPPED_WEIGHTS)


def test_doctor_is_not_content_with_weights_that_are_cut_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryopick.io import weights

    shutil.copytree(weights.PACKAGE_WEIGHTS, tmp_path / "weights")
    general = tmp_path / "weights" / "general.safetensors"
    general.write_bytes(general.read_bytes()[:100_000])
    (tmp_path / "weights" / "cryotransformer.safetensors").unlink()
    monkeypatch.setattr(weights, "PACKAGE_WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr("cryopick.cli.doctor.SAMPLE_PICKERS", ())
    done = cryopick("doctor", tmp_path)
    assert done.returncode == 1
    assert "all well" not in done.stdout
    cut, missing, count = done.stderr.splitlines()
    assert "general.safetensors: damaged or changed" in cut
    assert "no weights named 'cryotransformer'" in missing
    assert count == "2 checks failed"
