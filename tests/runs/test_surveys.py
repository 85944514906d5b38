"""What is asked, what is seen and what is found share no name; runs of version 0.1, which mixed them, go on."""

from __future__ import annotations

import json
import logging
import shutil
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_micrograph

from cryopick.errors import RunFolderError, SettingsError
from cryopick.geometry.units import Length, parse_length
from cryopick.io.images.micrographs import write_micrograph
from cryopick.pickers.registry import list_pickers, make_picker, picker_class
from cryopick.pickers.survey import Survey
from cryopick.runs.folder import RunFolder
from cryopick.runs.settings import FILLED_IN_BEFORE, PickSettings, make_settings, read_config, settings_sections
from cryopick.runs.stored_settings import read_survey
from cryopick.settings import settings_of, to_toml
from cryopick.types import Picks
from cryopick.workflows.convert import convert
from cryopick.workflows.pick import pick_to_folder
from cryopick.workflows.rethreshold import rethreshold

RINGS = {"shape_yx": (620, 700), "diameter_px": 40.0, "hole": 0.6, "spacing": 1.5, "contrast": 1.2}


def discs() -> PickSettings:
    return make_settings("blob", diameter=f"{DIAMETER_PX}px")


# ----------------------------------------------------------------------------------------------------- three types


@pytest.mark.parametrize("picker", list_pickers())
def test_a_survey_shares_no_name_with_settings_or_picks(picker: str) -> None:
    seen = {field.name for field in fields(Survey)}
    assert not seen & {setting.name for setting in settings_of(picker_class(picker))}
    assert not seen & {field.name for field in fields(Picks)}


@pytest.mark.parametrize("picker", list_pickers())
def test_nothing_that_a_run_measures_is_an_option_or_stands_in_config_toml(picker: str) -> None:
    offered = {setting.name for setting in settings_of(picker_class(picker))}  # what --help and the docs list
    written = settings_sections(make_settings(picker))[picker]
    assert not (offered | set(written)) & set(FILLED_IN_BEFORE)
    helps = " ".join(setting.help for setting in settings_of(picker_class(picker)))
    assert "filled in by the run" not in helps


def test_every_fact_of_a_survey_is_written_and_read_back_as_it_was() -> None:
    seen = Survey(
        particle_size=parse_length("150-200A"),
        size_uncertainty=1.5,
        filled_share=0.02,
        is_empty=True,
        trained_model=Path("/a folder/model.safetensors"),
        contrast_doubt='bright "discs"',
        sentence="measured 180 Å",
    )
    text = to_toml({"survey": seen.to_plain()})
    assert Survey.from_plain(tomllib.loads(text)["survey"], where="here") == seen
    assert to_toml({"survey": Survey().to_plain()}) == "[survey]\n"


@pytest.mark.parametrize("seen", [Survey(particle_size=Length(2, 2, "px")), Survey(working_size=Length(1, 1, "px"))])
@pytest.mark.parametrize("picker", ["general", "cryosegnet", "cryotransformer", "segmentation-crf", "autocryopicker"])
def test_a_measured_size_that_is_too_small_on_a_micrograph_is_refused_as_a_given_one_is(
    picker: str, seen: Survey
) -> None:
    with pytest.raises(SettingsError, match=r"m\.mrc: (working )?diameter .* or more on 160 x 120 px"):
        make_picker(picker).pick(disc_micrograph("m.mrc"), seen)


# --------------------------------------------------------------------------------------------- runs of version 0.1

PREPARED_BEFORE = {
    "general": (
        'diameter = "182.4A"\nworking_diameter = "171A"\nweights = "w.safetensors"\ndevice = "auto"\n'
        'precision = "auto"\nfilled_share = 0.123\nmeasured = "diameter measured: 182 A"\n',
        Survey(
            particle_size=Length(182.4, 182.4, "A"),
            working_size=Length(171, 171, "A"),
            filled_share=0.123,
            sentence="diameter measured: 182 A",
        ),
    ),
    "cryotransformer": (
        'diameter = "90px"\nkeep = "calibrated"\npercentile = 25.0\nis_empty = true\nmeasured = "looks empty"\n',
        Survey(particle_size=Length(90, 90, "px"), is_empty=True, sentence="looks empty"),
    ),
    "cryosegnet": ('segmenter = "none"\nis_empty = false\nmeasured = ""\n', Survey()),
    "cryoemmae": (
        'diameter = "90px"\nspecies = []\nclusters = 8\narea = 0.1\ndecoy_share = 0.25\nmeasured = ""\n',
        Survey(particle_size=Length(90, 90, "px"), decoy_share=0.25),
    ),
    "segmentation-crf": (
        'diameter = "90px"\nviews = 4\nadded_noise = 2.0\ndecoy_share = 0.1\nmeasured = "seen"\n',
        Survey(particle_size=Length(90, 90, "px"), noise_level=2.0, decoy_share=0.1, sentence="seen"),
    ),
    "deepcryopicker": (
        'diameter = "40px"\nmodel = "/run/model/deepcryopicker.safetensors"\nsteps = 300\nbody = 0.9\n'
        'found = "trained on 49 top view"\n',
        Survey(
            particle_size=Length(40, 40, "px"),
            trained_model=Path("/run/model/deepcryopicker.safetensors"),
            dark_part=0.9,
            sentence="trained on 49 top view",
        ),
    ),
    "autocryopicker": ('diameter = "40px"\nbody = 1.0\n', Survey(particle_size=Length(40, 40, "px"), dark_part=1.0)),
    "blob": (
        'diameter = "20px"\nprofile = "shell"\ncontrast_doubt = "look bright"\n',
        Survey(particle_size=Length(20, 20, "px"), radial_profile="shell", contrast_doubt="look bright"),
    ),
}


@pytest.mark.parametrize("picker", PREPARED_BEFORE)
def test_the_preparation_of_a_run_of_0_1_is_read_as_a_survey(picker: str, tmp_path: Path) -> None:
    text, expected = PREPARED_BEFORE[picker]
    (tmp_path / "prepared.toml").write_text(f"[{picker}]\n{text}", encoding="utf-8")
    assert read_survey(RunFolder(tmp_path), picker_class(picker)) == expected


def test_a_preparation_of_0_1_with_a_name_that_nobody_wrote_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "prepared.toml").write_text('[blob]\nprofile = "shell"\nradius = 3\n')
    with pytest.raises(RunFolderError, match="has no setting radius"):
        read_survey(RunFolder(tmp_path), picker_class("blob"))


def as_run_of_0_1(folder: Path) -> None:
    """Write settings and preparation of a run with `blob` as version 0.1 did."""
    profile = tomllib.loads((folder / "prepared.toml").read_text())["survey"]["radial_profile"]
    (folder / "prepared.toml").write_text(f'[blob]\ndiameter = "{DIAMETER_PX}px"\nprofile = "{profile}"\n')
    config = folder / "config.toml"
    config.write_text(config.read_text() + 'measured = ""\nis_empty = false\nfilled_share = 0.1\nfound = ""\n')


def test_a_run_of_0_1_goes_on_moves_its_threshold_and_converts_with_the_same_picks(
    folder_of_discs: Path, tmp_path: Path
) -> None:
    now, before = tmp_path / "now", tmp_path / "before"
    pick_to_folder([folder_of_discs], now, discs(), workers=1)
    shutil.copytree(now, before)
    as_run_of_0_1(before)
    write_micrograph(folder_of_discs / "m4.mrc", disc_micrograph("m4", seed=9))
    picked = []
    for output in (now, before):
        events = []
        pick_to_folder([folder_of_discs], output, discs(), workers=1, on_event=events.append)
        assert sorted(event.status for event in events) == ["done", "skipped", "skipped", "skipped", "started"]
        rethreshold(output, 5.0)
        convert(output, tmp_path / f"{output.name}.csv")
        picked.append([(output / "particles.star").read_bytes(), (tmp_path / f"{output.name}.csv").read_bytes()])
    assert picked[0] == picked[1]
    told = [line for line in (before / "run.log").read_text().splitlines() if "0.1 filled in" in line]
    assert len(told) == 1
    assert "measured, is_empty, filled_share, found" in told[0]


def test_a_difference_in_real_settings_is_told_without_what_runs_filled_in(
    folder_of_discs: Path, tmp_path: Path
) -> None:
    pick_to_folder([folder_of_discs], tmp_path / "run", discs(), workers=1)
    as_run_of_0_1(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"other settings \(blob diameter: 20px -> 30px\)"):
        pick_to_folder([folder_of_discs], tmp_path / "run", make_settings("blob", diameter="30px"), workers=1)


def test_a_config_file_of_0_1_is_taken_and_what_it_had_filled_in_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[run]\npicker = "general"\ncontrast = "dark"\n\n[general]\ndiameter = "180A"\nmeasured = ""\n'
        'is_empty = false\nfilled_share = 0.1\ndecoy_share = 0.2\nfound = ""\ncontrast_doubt = "x"\n'
    )
    with caplog.at_level(logging.WARNING):
        settings = make_settings(**read_config(path))
    assert settings == make_settings("general", diameter="180A")
    (told,) = caplog.messages
    assert all(name in told for name in FILLED_IN_BEFORE)


# ------------------------------------------------------------------------------------------------ what a user reads


def test_what_deepcryopicker_learnt_stands_in_summary_report_and_what_is_printed(
    tmp_path: Path, draw_particles, capsys: pytest.CaptureFixture[str]
) -> None:
    from cryopick.cli.pick import print_summary

    micrograph, _ = draw_particles(**RINGS)
    write_micrograph(tmp_path / "rings.mrc", micrograph)
    settings = make_settings("deepcryopicker", diameter="40px", body=1.0, steps=3)
    summary = pick_to_folder([tmp_path / "rings.mrc"], tmp_path / "run", settings, workers=1)
    print_summary(summary, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert stored["prepared"].startswith("trained on ")
    assert stored["prepared"] in capsys.readouterr().out
    assert stored["prepared"] in (tmp_path / "run" / "report.html").read_text()
