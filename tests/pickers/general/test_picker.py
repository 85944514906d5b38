"""The general picker with its shipped weights: finds simulated particles, sizes them, and leaves noise alone."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.geometry.units import Length
from cryopick.heatmap.emptiness import EMPTY_FILLED_SHARE
from cryopick.heatmap.model import load_model
from cryopick.io.weights import load_checkpoint, read_card, weights_folders
from cryopick.metrics.detection import match_picks, pooled
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.runs.one import pick_micrograph
from cryopick.runs.settings import PickPlan, PickSettings
from cryopick.runs.threshold import Cut, at_threshold, choose_cut, open_candidates
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph

WEIGHTS = weights_folders()[0] / "general.safetensors"
NO_POINTS = np.zeros((0, 2))
pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason="the package holds no weights of the general picker")


@pytest.fixture(scope="module")
def rings():
    """Simulated micrographs of a ring-shaped protein in little noise."""
    one = next(each for each in suite_sets(levels=("easy",)) if each.protein.family == "ring")
    return one, list(one.micrographs())


def picks_of(picker, micrograph, *, survey=None, threshold=None):
    """As a run of this micrograph alone keeps them."""
    plan = PickPlan(settings=PickSettings(picker=picker), survey=survey)
    candidates = pick_micrograph(micrograph, plan)
    cut = (
        choose_cut(plan, {"it": open_candidates(candidates, picker)}) if threshold is None else Cut(threshold=threshold)
    )
    return at_threshold(candidates, cut.threshold, belief=cut.belief_in("it")).kept()


def test_simulated_rings_are_found_and_centred(rings):
    one, simulated = rings
    size = one.protein.diameter_angstrom
    picker = GeneralPicker(diameter=Length(size, size, "A"))
    survey = picker.survey([each.micrograph for each in simulated])
    matches = []
    for each in simulated:
        found = picks_of(picker, each.micrograph, survey=survey)
        truth, others = each.xy_px[each.is_pickable], each.xy_px[~each.is_pickable]
        tolerance_px = 0.25 * float(np.median(each.diameter_px))
        matches.append(match_picks(found.xy_px, truth, others, max_distance_px=tolerance_px))
        assert np.median(matches[-1].pairs.cost) < 0.3 * tolerance_px
    assert pooled(match.counts for match in matches).f1 > 0.9


def test_without_a_diameter_it_is_measured(rings):
    one, simulated = rings
    seen = GeneralPicker().survey([each.micrograph for each in simulated])
    assert seen.particle_size.unit == "A"
    assert seen.particle_size.middle == pytest.approx(one.protein.diameter_angstrom, rel=0.2)
    assert "measured" in seen.sentence


def test_pixel_size_unknown_gives_a_diameter_in_pixels(rings):
    one, simulated = rings
    unknown = [replace(each.micrograph, pixel_size_angstrom=None) for each in simulated]
    seen = GeneralPicker().survey(unknown)
    assert seen.particle_size.unit == "px"
    expected_px = one.protein.diameter_angstrom / one.protein.pixel_size_angstrom
    assert seen.particle_size.middle == pytest.approx(expected_px, rel=0.2)


def test_noise_holds_no_particle():
    rng = np.random.default_rng(0)
    picker = GeneralPicker(diameter=Length(60, 60, "px"))
    noise = [rng.normal(size=(700, 900)).astype(np.float32) for _ in range(2)]
    assert [len(picks_of(picker, Micrograph(each))) for each in noise] == [0, 0]


def test_noise_is_not_filled_with_particles():
    rng = np.random.default_rng(1)
    noise = [Micrograph(rng.normal(size=(900, 900)).astype(np.float32)) for _ in range(3)]
    of_noise = GeneralPicker(diameter=Length(50, 50, "px")).survey(noise)
    assert of_noise.filled_share < EMPTY_FILLED_SHARE


@pytest.mark.parametrize("family", ["globular", "shell", "assembly", "rod", "flexible"])
def test_faint_particles_are_not_taken_for_noise_even_if_hollow(family):
    faint = next(one for one in suite_sets(levels=("hard",)) if one.protein.family == family)
    simulated = [next(iter(faint.micrographs())).micrograph]
    size = faint.protein.diameter_angstrom
    seen = GeneralPicker(diameter=Length(size, size, "A")).survey(simulated)
    assert seen.filled_share > EMPTY_FILLED_SHARE


def test_picks_do_not_depend_on_the_tiling(rings, monkeypatch):
    one, simulated = rings
    size = one.protein.diameter_angstrom
    picker = GeneralPicker(diameter=Length(size, size, "A"), precision="float32")
    whole = picker.pick(simulated[0].micrograph)
    model = load_model(None, precision="float32")
    in_tiles = replace(model, dense=replace(model.dense, tile_px=128))
    monkeypatch.setattr("cryopick.heatmap.model.load_model", lambda *_, **__: in_tiles)
    tiled = picker.pick(simulated[0].micrograph)
    assert np.allclose(whole.xy_px, tiled.xy_px, atol=1e-2)
    assert np.allclose(whole.score, tiled.score, atol=1e-3)


def test_one_look_finds_nearly_what_three_find(rings):
    one, simulated = rings
    size = Length(one.protein.diameter_angstrom, one.protein.diameter_angstrom, "A")
    three, single = (
        picks_of(GeneralPicker(diameter=size, precision="float32", looks=looks), simulated[0].micrograph, threshold=0.5)
        for looks in (3, 1)
    )
    assert match_picks(three.xy_px, single.xy_px, NO_POINTS, max_distance_px=5.0).counts.f1 > 0.95
    assert not np.array_equal(three.score, single.score)


def test_looks_are_one_or_three():
    with pytest.raises(SettingsError, match="looks is 2, expected 1 or 3"):
        GeneralPicker(looks=2)


def test_half_precision_changes_scores_by_little(rings):
    one, simulated = rings
    size = one.protein.diameter_angstrom
    both = [
        picks_of(
            GeneralPicker(diameter=Length(size, size, "A"), precision=precision), simulated[0].micrograph, threshold=0.5
        )
        for precision in ("float32", "bfloat16")
    ]
    match = match_picks(both[0].xy_px, both[1].xy_px, NO_POINTS, max_distance_px=3.0)
    assert match.counts.f1 > 0.97


def test_eight_bit_integers_change_scores_by_little_and_are_what_auto_takes(rings):
    from cryopick.inference.processor import multiplies_int8

    if not multiplies_int8():
        pytest.skip("this CPU does not multiply 8-bit integers")
    one, simulated = rings
    size = one.protein.diameter_angstrom
    exact, rounded, fastest = (
        picks_of(
            GeneralPicker(diameter=Length(size, size, "A"), precision=precision), simulated[0].micrograph, threshold=0.5
        )
        for precision in ("float32", "int8", "auto")
    )
    match = match_picks(exact.xy_px, rounded.xy_px, NO_POINTS, max_distance_px=3.0)
    assert match.counts.f1 > 0.97
    assert not np.array_equal(exact.score, rounded.score)
    assert np.array_equal(fastest.score, rounded.score)


def test_eight_bit_integers_are_refused_where_they_cannot_be_had(tmp_path):
    card = read_card(WEIGHTS)
    without = {name: value for name, value in card.postprocessing.items() if name != "activation_ranges"}
    shutil.copy(WEIGHTS, tmp_path / "mine.safetensors")
    (tmp_path / "mine.json").write_text(json.dumps(asdict(replace(card, postprocessing=without))))
    with pytest.raises(SettingsError, match="activation_ranges"):
        load_model(tmp_path / "mine.safetensors", device="cpu", precision="int8")
    assert load_model(tmp_path / "mine.safetensors", device="cpu").input_planes == 3


def test_the_card_tells_what_the_weights_are():
    card = load_checkpoint(WEIGHTS, picker="general").card
    assert card.data["kind"] == "simulation"
    assert card.licence == "BSD-3-Clause"
    assert card.steps > 0
    knots, share = card.postprocessing["calibration"]
    assert np.all(np.diff(knots) > 0)
    assert np.all(np.diff(share) >= 0)
    assert 0 <= share[0] <= share[-1] <= 1
