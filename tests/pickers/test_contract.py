"""What every registered picker promises, whatever it does inside."""

from __future__ import annotations

import os
from dataclasses import MISSING, fields, replace
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest

import cryopick.pickers
from cryopick.errors import WeightsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.coordinates.candidates import candidates_text
from cryopick.io.images.mrc import write_mrc
from cryopick.pickers.protocol import Picker, run_level_fields
from cryopick.pickers.registry import list_pickers, make_picker, picker_class
from cryopick.pickers.survey import Survey
from cryopick.settings import settings_of
from cryopick.types import Micrograph

DIAMETER_PX = 30.0
PIXEL_SIZE_ANGSTROM = 2.0
DIAMETER = Length(60.0, 60.0, "A")


def disc_references(folder: Path) -> dict[str, object]:
    """Two bright references of 2 Å per pixel: a disc and a ring of 60 Å."""
    y, x = np.mgrid[:48, :48] - 24
    radius = np.hypot(x, y)
    stack = np.stack([radius <= 15, (radius <= 15) & (radius >= 9)]).astype(np.float32)
    path = folder / "references.mrcs"
    if not path.exists():
        write_mrc(path, stack, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    return {"references": path, "rotation_step_deg": 90.0}


def model_trained_on_discs(folder: Path) -> dict[str, object]:
    """A small DeepCryoPicker model that labelled 200 dark discs in noise for itself."""
    rng = np.random.default_rng(5)
    micrographs = []
    for _ in range(2):
        pixels = rng.normal(100.0, 1.0, (520, 600))
        y, x = np.mgrid[:520, :600]
        for centre_y in np.arange(30, 500, 52):
            for centre_x in np.arange(30, 580, 54):
                shift_x, shift_y = rng.uniform(-6, 6, 2)
                pixels -= np.hypot(x - centre_x - shift_x, y - centre_y - shift_y) <= DIAMETER_PX / 2
        micrographs.append(Micrograph(pixels, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM))
    path = folder / "deepcryopicker"
    if not path.exists():
        make_picker("deepcryopicker", diameter=DIAMETER, steps=60).survey_in(path, micrographs)
    return {"model": path / "deepcryopicker.safetensors"}


SETTINGS = {"template": disc_references, "deepcryopicker": model_trained_on_discs}
"""What a picker needs besides the diameter. Pickers not named here are made from the diameter alone."""


STRANGER = os.environ.get("CRYOPICK_PICKER")
"""A picker of another package that these tests are run on instead: `CRYOPICK_PICKER=mine pytest test_contract.py`."""
OURS = [name for name in list_pickers() if picker_class(name).__module__.startswith("cryopick.")]
"""Other tests register toys of their own, in whatever order they are collected."""


@pytest.fixture(params=[STRANGER] if STRANGER else OURS)
def picker(request, tmp_path_factory):
    name = request.param
    folder = tmp_path_factory.getbasetemp()
    settings = SETTINGS[name](folder) if name in SETTINGS else {}
    made = make_picker(name, diameter=DIAMETER, **settings)
    try:
        made.pick(Micrograph(np.zeros((64, 64), np.float32), pixel_size_angstrom=PIXEL_SIZE_ANGSTROM))
    except WeightsError as error:
        pytest.skip(f"picker {name} has no weights on this machine: {error}")
    return made


def kept(picker, micrograph, **settings):
    picks = picker.pick(micrograph)
    return select(picks, SelectionSettings(**settings), threshold=type(picker).default_threshold).kept()


def check_well_formed(picks, micrograph):
    height, width = micrograph.shape_yx
    assert np.isfinite(picks.xy_px).all()
    assert np.isfinite(picks.score).all()
    assert np.isfinite(picks.diameter_px).all()
    assert (picks.diameter_px > 0).all()
    assert ((picks.xy_px >= -0.5) & (picks.xy_px <= np.array([width, height]) - 0.5)).all()
    assert (picks.reason == "").all()
    assert picks.micrograph_name == micrograph.name
    assert picks.shape_yx == micrograph.shape_yx
    assert picks.pixel_size_angstrom == micrograph.pixel_size_angstrom


def test_every_system_registers_at_least_one_picker():
    systems = {name for _, name, is_package in iter_modules(cryopick.pickers.__path__) if is_package}
    modules = [picker_class(name).__module__ for name in list_pickers()]
    registered = {module.split(".")[2] for module in modules if module.startswith("cryopick.pickers.")}
    assert len(systems) >= 7
    assert systems <= registered


def test_picker_follows_the_protocol_and_explains_its_score(picker):
    assert isinstance(picker, Picker)
    assert len(picker.score_meaning) > 10
    assert np.isfinite(picker.default_threshold)
    assert type(picker).__doc__


def test_every_setting_has_a_default_and_a_help_sentence(picker):
    for setting in settings_of(type(picker)):
        assert setting.default is not MISSING
        assert setting.help, f"{type(picker).__name__}.{setting.name} has no help sentence"


def test_picks_are_inside_finite_and_carry_the_micrographs_identity(picker, draw_particles):
    micrograph, _ = draw_particles()
    picks = picker.pick(micrograph)
    check_well_formed(picks, micrograph)
    assert picks.micrograph_name == "drawn.mrc"


def test_picking_twice_gives_the_same_candidates(picker, draw_particles):
    micrograph, _ = draw_particles()
    first, second = picker.pick(micrograph), picker.pick(micrograph)
    np.testing.assert_array_equal(first.xy_px, second.xy_px)
    np.testing.assert_array_equal(first.score, second.score)
    np.testing.assert_array_equal(first.diameter_px, second.diameter_px)


def test_the_micrograph_is_not_changed(picker, draw_particles):
    micrograph, _ = draw_particles()
    before = micrograph.pixels.copy()
    picker.pick(micrograph)
    np.testing.assert_array_equal(micrograph.pixels, before)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5e4, 1e6])
def test_a_constant_micrograph_gives_no_picks(picker, value):
    micrograph = Micrograph(np.full((200, 150), value, np.float32), pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    assert len(kept(picker, micrograph)) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_micrograph_without_a_finite_pixel_gives_no_picks(picker, value):
    micrograph = Micrograph(np.full((128, 96), value, np.float32), pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    assert len(kept(picker, micrograph)) == 0


@pytest.mark.parametrize("shape_yx", [(1, 1), (1, 40), (7, 5), (16, 16), (31, 29)])
def test_a_micrograph_smaller_than_a_particle_is_survived(picker, shape_yx):
    pixels = np.random.default_rng(0).normal(size=shape_yx)
    micrograph = Micrograph(pixels, pixel_size_angstrom=PIXEL_SIZE_ANGSTROM)
    check_well_formed(picker.pick(micrograph), micrograph)


@pytest.mark.parametrize("shape_yx", [(90, 700), (700, 90)])
def test_a_long_narrow_micrograph_is_picked_within_its_bounds(picker, shape_yx, draw_particles):
    micrograph, _ = draw_particles(shape_yx=shape_yx)
    check_well_formed(picker.pick(micrograph), micrograph)


def test_dark_discs_are_found_at_their_centres_and_little_else(picker, draw_particles, count_found):
    micrograph, true_xy = draw_particles()
    picks = kept(picker, micrograph)
    assert count_found(picks.xy_px, true_xy, 0.15 * DIAMETER_PX) >= 0.9 * len(true_xy)
    assert len(picks) <= 1.2 * len(true_xy)


def test_bright_discs_are_found_once_the_contrast_is_inverted(picker, draw_particles, count_found):
    micrograph, true_xy = draw_particles(contrast=-1.0)
    picks = kept(picker, micrograph.inverted())
    assert count_found(picks.xy_px, true_xy, 0.15 * DIAMETER_PX) >= 0.9 * len(true_xy)
    wrong_sign = kept(picker, micrograph)
    assert count_found(wrong_sign.xy_px, true_xy, 0.15 * DIAMETER_PX) <= 0.3 * len(true_xy)


def test_nan_and_infinite_pixels_spoil_only_their_surroundings(picker, draw_particles, count_found):
    micrograph, true_xy = draw_particles()
    pixels = micrograph.pixels.copy()
    pixels[:60, :60] = np.nan
    pixels[200, 300] = np.inf
    pixels[100, 200] = -np.inf
    spoilt = replace(micrograph, pixels=pixels)
    check_well_formed(picker.pick(spoilt), spoilt)
    far = np.hypot(true_xy[:, 0] - 30, true_xy[:, 1] - 30) > 90
    for x, y in ((300, 200), (200, 100)):
        far &= np.hypot(true_xy[:, 0] - x, true_xy[:, 1] - y) > 20
    picks = kept(picker, spoilt)
    assert count_found(picks.xy_px, true_xy[far], 0.15 * DIAMETER_PX) >= 0.85 * far.sum()


def test_pixel_size_and_diameter_scaled_together_give_the_same_candidates(picker, draw_particles):
    micrograph, _ = draw_particles()
    picks = picker.pick(micrograph)
    rescaled = replace(picker, diameter=Length(3 * DIAMETER.low, 3 * DIAMETER.high, "A"))
    if hasattr(picker, "references_pixel_size_angstrom"):
        rescaled = replace(rescaled, references_pixel_size_angstrom=3 * PIXEL_SIZE_ANGSTROM)
    again = rescaled.pick(replace(micrograph, pixel_size_angstrom=3 * PIXEL_SIZE_ANGSTROM))
    np.testing.assert_allclose(again.xy_px, picks.xy_px, atol=1e-6)
    np.testing.assert_allclose(again.score, picks.score, atol=1e-6)


def test_brightness_and_gain_do_not_matter(picker, draw_particles):
    micrograph, _ = draw_particles()
    picks = kept(picker, micrograph)
    scaled = kept(picker, replace(micrograph, pixels=micrograph.pixels * 37.0 - 500.0))
    assert abs(len(scaled) - len(picks)) <= 0.02 * len(picks) + 1
    gaps = np.hypot(*(scaled.xy_px[None] - picks.xy_px[:, None]).transpose(2, 0, 1)).min(axis=1)
    assert np.mean(gaps < 0.05 * DIAMETER_PX) >= 0.95


@pytest.mark.parametrize("axis", ["x", "y"])
def test_flipping_the_micrograph_flips_the_picks(picker, draw_particles, axis):
    # sizes that no working scale divides, so that a resampling which is off by part of a pixel shows
    micrograph, _ = draw_particles(shape_yx=(301, 407))
    picks = kept(picker, micrograph)
    flipped = kept(picker, replace(micrograph, pixels=np.flip(micrograph.pixels, axis=1 if axis == "x" else 0)))
    expected_xy = picks.xy_px.copy()
    column = 0 if axis == "x" else 1
    expected_xy[:, column] = micrograph.pixels.shape[1 - column] - 1 - expected_xy[:, column]
    gaps = np.hypot(*(flipped.xy_px[None] - expected_xy[:, None]).transpose(2, 0, 1)).min(axis=1)
    assert np.mean(gaps < 0.1 * DIAMETER_PX) >= 0.9
    assert len(flipped) >= 0.9 * len(picks)


# ------------------------------------------------------------------------------------- what a run sees before it picks

SEEN = Survey(
    particle_size=DIAMETER,
    size_uncertainty=1.0,
    working_size=Length(52.0, 52.0, "A"),
    filled_share=0.2,
    noise_level=0.0,
    dark_part=1.0,
    radial_profile="disc",
    sentence="measured",
)
OTHERWISE = {
    "particle_size": Length(66.0, 66.0, "A"),
    "size_uncertainty": 3.0,
    "working_size": Length(40.0, 40.0, "A"),
    "filled_share": 0.7,
    "is_empty": True,
    "decoy_share": 0.3,
    "noise_level": 2.0,
    "dark_part": 0.6,
    "radial_profile": "thin-shell",
    "trained_model": Path("elsewhere.safetensors"),
    "contrast_doubt": "they may be bright",
    "size_doubt": "they look larger",
    "size_seen": Length(90.0, 90.0, "A"),
    "prepared_settings": "{}",
    "sentence": "measured otherwise",
}
"""Another value of every field of a survey."""
LOOKED_BY = {
    "blob": {"radial_profile"},
    "consensus": {"working_size", "particle_size", "noise_level"},
    "general": {"working_size"},
    "cryotransformer": {"working_size"},
    "cryosegnet": {"working_size", "particle_size"},
    "segmentation-crf": {"particle_size", "noise_level"},
    "cryoemmae": {"particle_size"},
    "deepcryopicker": {"particle_size"},
    "autocryopicker": {"particle_size", "dark_part", "is_empty"},
    "supercryopicker": {"particle_size", "dark_part", "is_empty"},
    "template": set(),
}
"""Fields that every picker looks by; the rest of `SEEN` may be either."""


def candidate_bytes(picker, micrograph, survey):
    return candidates_text(picker.pick(micrograph, survey))


def test_what_changes_only_a_run_as_a_whole_changes_no_candidate(picker, draw_particles):
    micrograph, _ = draw_particles()
    aside = run_level_fields(picker)
    assert set(OTHERWISE) == {field.name for field in fields(Survey)} >= aside
    assert not aside & LOOKED_BY[picker.name]
    before = candidate_bytes(picker, micrograph, SEEN)
    other = {name: OTHERWISE[name] for name in sorted(aside)}
    names = list(other)
    for part in (names[::2], names[1::2]):  # two picks, as each takes seconds
        changed = replace(SEEN, **{name: other[name] for name in part})
        assert candidate_bytes(picker, micrograph, changed) == before, part


def test_general_looks_at_its_working_size(draw_particles):
    micrograph, _ = draw_particles()
    general = make_picker("general", diameter=DIAMETER)
    before = candidate_bytes(general, micrograph, SEEN)
    assert candidate_bytes(general, micrograph, replace(SEEN, working_size=OTHERWISE["working_size"])) != before
