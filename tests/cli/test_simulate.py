"""`cryopick simulate` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cryopick.cli.simulate import command
from cryopick.errors import SettingsError

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
