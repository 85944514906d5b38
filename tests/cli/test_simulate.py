"""`cryopick simulate` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cryopick.cli.simulate import command
from cryopick.errors import SettingsError
from cryopick.simulation.session import KINDS

APP = typer.Typer()
APP.command()(command)


def test_simulate_writes_a_labelled_set_and_says_where(tmp_path: Path) -> None:
    arguments = ["-o", str(tmp_path / "sim"), "--count", "1", "--size", "200x240", "--pixel-size", "6", "--json"]
    result = CliRunner().invoke(APP, [*arguments, "--diameter", "120A", "--seed", "4", "--recipe", "clean"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.strip().splitlines()[-1])
    assert summary["micrographs"] == summary["made"] == 1
    assert summary["diameter_px"] == pytest.approx(20.0)
    assert (tmp_path / "sim" / "micrographs" / "sim_0001.mrc").is_file()


def test_impossible_defocus_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = CliRunner().invoke(APP, ["-o", str(tmp_path / "sim"), "--defocus", "2.5-0.8um"])
    assert isinstance(result.exception, SettingsError)
    assert not (tmp_path / "sim").exists()


def test_a_session_says_how_many_of_each_kind_it_made(tmp_path: Path) -> None:
    arguments = ["-o", str(tmp_path / "sim"), "--session", "full=1,empty=2,carbon=0.1", "--count", "3", "--snr", "12"]
    arguments += ["--size", "200x240", "--pixel-size", "6", "--diameter", "120A", "--json"]
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.strip().splitlines()[-1])
    assert summary["kinds"] == {"full": 1, "empty": 2, "carbon": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--session", "full=1,broken=1"], "'broken' is unknown; known: full, sparse"),
        (["--session", "full=1", "--suite"], "--suite and --session"),
        (["--snr", "9", "--dose", "40"], "--dose and --snr both set the dose"),
        (["--session", "full=1", "--recipe", "segmentation-crf"], "knows neither sessions nor an SNR"),
    ],
)
def test_what_makes_no_session_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = CliRunner().invoke(APP, ["-o", str(tmp_path / "sim"), *arguments])
    assert isinstance(result.exception, SettingsError)
    assert message in str(result.exception)
    assert not (tmp_path / "sim").exists()


def test_help_names_every_kind() -> None:
    text = CliRunner().invoke(APP, ["--help"]).output
    assert all(kind in text for kind in KINDS)
