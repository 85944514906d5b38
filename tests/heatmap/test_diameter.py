"""Which sizes are taken for populations, from the votes of several micrographs, and how certain the first one is."""

import numpy as np
import pytest

from cryopick.geometry.units import Length
from cryopick.heatmap.diameter import (
    ENOUGH_MICROGRAPHS,
    SIZE_ERROR,
    _Detections,
    _modes,
    estimate_diameter,
    look_at_pieces,
    looks_empty,
)
from cryopick.heatmap.model import load_model
from cryopick.pickers.cryotransformer.picker import CryoTransformerPicker
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.pickers.registry import make_picker
from cryopick.pickers.survey import NOTHING_SEEN, Survey
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph


def votes(*sizes_px: float, weight: float = 0.01) -> _Detections:
    return _Detections(np.array(sizes_px), np.full(len(sizes_px), weight))


def test_the_size_that_explains_most_comes_first():
    each = votes(*[50.0] * 10, *[100.0] * 6)
    assert _modes([each] * 4) == pytest.approx([50.0, 100.0], rel=0.05)


def test_round_ice_on_one_micrograph_is_no_population():
    particles, ice = votes(*[50.0] * 10), votes(*[90.0] * 200)
    assert _modes([particles, particles, ice]) == pytest.approx([50.0], rel=0.05)
    assert _modes([votes(), votes(), ice]) == []


def test_of_fewer_micrographs_every_vote_counts():
    few = [votes()] * (ENOUGH_MICROGRAPHS - 2) + [votes(*[90.0] * 5)]
    assert _modes(few) == pytest.approx([90.0], rel=0.05)


def test_without_votes_there_is_no_size():
    assert _modes([]) == _modes([votes(), votes()]) == []


def test_the_uncertainty_holds_what_more_particles_do_not_mend():
    ring = next(one for one in suite_sets(levels=("easy",)) if one.protein.family == "ring")
    found = estimate_diameter(load_model(None), [simulated.micrograph for simulated in ring.micrographs()])
    error = abs(found.diameter.middle - ring.protein.diameter_angstrom)
    assert found.detection_count > 500  # so many that their own spread would promise hundredths
    assert SIZE_ERROR * found.diameter.middle <= found.uncertainty < 0.2 * found.diameter.middle
    assert error < 2 * found.uncertainty


def test_a_run_looks_empty_where_general_would_keep_nothing_at_its_size():
    model, rng = load_model(None), np.random.default_rng(0)
    noise = [Micrograph(rng.normal(size=(700, 700)).astype(np.float32)) for _ in range(3)]

    def is_empty(micrographs, size, *, filled):
        pieces = look_at_pieces(model, micrographs, size)
        return looks_empty(pieces, filled=filled, calibrated_share=model.calibration.share)

    assert is_empty(noise, Length(30, 30, "px"), filled=0.0)
    few = next(one for one in suite_sets(levels=("easy",)) if one.protein.family == "ring")
    size = Length(few.protein.diameter_angstrom, few.protein.diameter_angstrom, "A")
    micrographs = [next(iter(few.micrographs())).micrograph]
    assert not is_empty(micrographs, size, filled=0.0)  # few, and clear
    assert not is_empty(noise, Length(30, 30, "px"), filled=0.1)


def test_nothing_of_an_empty_run_is_kept_and_every_score_stays():
    scores = np.array([0.2, 0.9, 0.97], np.float32)
    picker, empty = CryoTransformerPicker(), Survey(is_empty=True)
    assert picker.run_probabilities(scores, empty).sum() == 0
    assert (scores < picker.choose_threshold(scores, empty)).all()
    assert picker.run_probabilities(scores, NOTHING_SEEN).sum() > 0


@pytest.mark.parametrize("name", ["general", "cryotransformer", "cryosegnet", "segmentation-crf", "cryoemmae"])
def test_a_run_that_holds_no_particle_is_not_measured_again_micrograph_by_micrograph(name):
    few = next(one for one in suite_sets(levels=("easy",)) if one.protein.family == "ring")
    micrograph = next(iter(few.micrographs())).micrograph
    assert len(GeneralPicker().pick(micrograph)) > 0
    of_run = Survey(sentence="nothing looks like a particle at any size")
    assert len(make_picker(name).pick(micrograph, of_run)) == 0
