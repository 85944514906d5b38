"""CryoTransformer with its shipped weights: each simulated particle once, in crowds too, and nothing in noise."""

from dataclasses import replace

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.geometry.selection import SelectionSettings, select
from cryopick.geometry.units import Length
from cryopick.io.weights import load_checkpoint, weights_folders
from cryopick.metrics.detection import match_picks, pooled
from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker
from cryopick.pickers.cryotransformer.published import above_percentile
from cryopick.pickers.survey import NOTHING_SEEN
from cryopick.runs.in_memory import pick_in_memory
from cryopick.runs.one import junk_mask
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph

WEIGHTS = weights_folders()[0] / "cryotransformer.safetensors"
NO_POINTS = np.zeros((0, 2))
NO_SPACING = SelectionSettings(min_distance=Length(1e-3, 1e-3, "px"))
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason="the package holds no weights of cryotransformer")


@pytest.fixture(scope="module")
def rings():
    """Simulated micrographs of a ring-shaped protein in little noise."""
    one = next(each for each in suite_sets(levels=("easy",)) if each.protein.family == "ring")
    size = one.protein.diameter_angstrom
    return Length(size, size, "A"), list(one.micrographs())


def kept_of(picker, micrograph, threshold=None):
    """What the network keeps, without any rule about distances."""
    candidates = picker.pick(micrograph)
    junk = junk_mask(candidates)
    cut = picker.choose_threshold(candidates.score, NOTHING_SEEN) if threshold is None else threshold
    return select(candidates, NO_SPACING, threshold=cut, junk_mask=junk).kept()


@needs_weights
def test_simulated_rings_are_found_once_each_without_any_suppression(rings):
    diameter, simulated = rings
    picker = CryoTransformerPicker(diameter=diameter)
    matches = []
    for each in simulated:
        found = kept_of(picker, each.micrograph)
        size_px = float(np.median(each.diameter_px))
        truth, others = each.xy_px[each.is_pickable], each.xy_px[~each.is_pickable]
        matches.append(match_picks(found.xy_px, truth, others, max_distance_px=0.25 * size_px))
        gaps = np.hypot(*(found.xy_px[:, None] - found.xy_px[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(found))
        assert gaps.min() > 0.3 * size_px
    assert pooled(match.counts for match in matches).f1 > 0.9


@needs_weights
def test_noise_holds_no_particle():
    rng = np.random.default_rng(0)
    picker = CryoTransformerPicker(diameter=Length(60, 60, "px"))
    noise = [Micrograph(rng.normal(size=(700, 900)).astype(np.float32)) for _ in range(2)]
    assert [len(each.kept()) for each in pick_in_memory(picker, noise).picks] == [0, 0]


@needs_weights
def test_picks_do_not_depend_on_the_tiling(rings, monkeypatch):
    diameter, simulated = rings
    picker = CryoTransformerPicker(diameter=diameter, precision="float32")
    whole = picker.pick(simulated[0].micrograph)
    model = picker._model()
    tiled = replace(model, dense=replace(model.dense, tile_px=128))
    monkeypatch.setattr(CryoTransformerPicker, "_model", lambda self: tiled)
    again = picker.pick(simulated[0].micrograph)
    sure, same = whole.score > 0.1, again.score > 0.1
    np.testing.assert_allclose(again.xy_px[same], whole.xy_px[sure], atol=0.05)
    np.testing.assert_allclose(again.score[same], whole.score[sure], atol=5e-3)


@needs_weights
def test_half_precision_changes_picks_by_little(rings):
    diameter, simulated = rings
    both = [
        kept_of(CryoTransformerPicker(diameter=diameter, precision=precision), simulated[0].micrograph, threshold=0.5)
        for precision in ("float32", "bfloat16")
    ]
    assert match_picks(both[0].xy_px, both[1].xy_px, NO_POINTS, max_distance_px=3.0).counts.f1 > 0.96


@needs_weights
def test_without_a_diameter_it_is_measured(rings):
    diameter, simulated = rings
    seen = CryoTransformerPicker().survey([each.micrograph for each in simulated[:2]])
    assert seen.particle_size.unit == "A"
    assert seen.particle_size.middle == pytest.approx(diameter.middle, rel=0.2)


@needs_weights
def test_the_articles_percentile_is_that_of_each_micrographs_own_answers(rings):
    diameter, simulated = rings
    micrograph = simulated[0].micrograph
    every = CryoTransformerPicker(diameter=diameter).pick(micrograph)
    picker = CryoTransformerPicker(diameter=diameter, keep="percentile", percentile=40)
    picks = picker.pick(micrograph)
    is_kept = above_percentile(every.score.astype(np.float64), quantile=0.4)
    np.testing.assert_array_equal(picks.xy_px, every.xy_px[is_kept])
    assert picker.choose_threshold(picks.score, NOTHING_SEEN) == 0.0
    with pytest.raises(SettingsError, match="target precision"):
        picker.choose_threshold(picks.score, NOTHING_SEEN, target_precision=0.9)


@needs_weights
def test_published_behaviour_needs_the_published_network(rings):
    diameter, simulated = rings
    with pytest.raises(SettingsError, match="train cryotransformer --as article"):
        CryoTransformerPicker(diameter=diameter, behaviour="published").pick(simulated[0].micrograph)


@needs_weights
def test_the_card_tells_what_the_weights_are():
    card = load_checkpoint(WEIGHTS, picker="cryotransformer").card
    assert card.data["kind"] == "simulation"
    assert card.data["started_from"] == "general"
    assert card.steps > 0
    knots, share = card.postprocessing["calibration"]
    assert np.all(np.diff(knots) > 0)
    assert np.all(np.diff(share) >= 0)
    assert WEIGHTS.stat().st_size < 25e6


@pytest.mark.parametrize(("setting", "value"), [("percentile", 100.0), ("percentile", -1.0), ("precision", "float8")])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(SettingsError, match=setting):
        CryoTransformerPicker(**{setting: value})
