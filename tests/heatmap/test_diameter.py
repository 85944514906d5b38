"""How large particles are found to be, how certain that is, and what a run without any comes to."""

from dataclasses import replace

import numpy as np
import pytest

from cryopick.geometry.units import Length
from cryopick.heatmap.diameter import (
    SIZE_ERROR,
    DiameterEstimate,
    estimate_diameter,
    holding_particles,
    look_at_pieces,
    looks_empty,
)
from cryopick.heatmap.model import load_model
from cryopick.pickers.general.picker import GeneralPicker
from cryopick.pickers.registry import make_picker
from cryopick.pickers.survey import Survey
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph


def test_the_uncertainty_holds_what_more_particles_do_not_mend():
    ring = next(one for one in suite_sets(levels=("easy",)) if one.protein.family == "ring")
    simulated = list(ring.micrographs())
    found = estimate_diameter(load_model(None), [one.micrograph for one in simulated])
    error = abs(found.diameter.middle - ring.protein.diameter_angstrom)
    assert found.detection_count > 300  # so many that their own spread would promise hundredths
    there = sum(len(one.xy_px) for one in simulated)
    assert found.detection_count < 1.1 * there  # each of them once, and few that are none
    assert SIZE_ERROR * found.diameter.middle <= found.uncertainty < 0.2 * found.diameter.middle
    assert error < 2 * found.uncertainty


def test_the_sentence_says_which_size_is_meant_and_what_it_rests_on():
    estimate = DiameterEstimate(
        diameter=Length(188, 188, "px"),
        uncertainty=19,
        detection_count=1316,
        micrograph_count=1,
        populations=(188.0,),
    )
    assert str(estimate).startswith("diameter 188 ± 19 px from tip to tip of the longest view")
    assert str(estimate).endswith("measured on 1,316 particles of 1 micrograph")


def test_the_one_filled_micrograph_among_empty_ones_is_measured_as_if_it_were_alone():
    model, rng = load_model(None), np.random.default_rng(1)
    ring = next(one for one in suite_sets(levels=("medium",)) if one.protein.family == "ring")
    filled = next(iter(ring.micrographs())).micrograph
    pixels = [rng.normal(size=(768, 768)).astype(np.float32) for _ in range(4)]
    empty = [replace(filled, pixels=one, name=f"empty{i}") for i, one in enumerate(pixels)]
    session = [*empty[:3], filled, empty[3]]
    assert estimate_diameter(model, session) == estimate_diameter(model, [filled])
    given = Length(ring.protein.diameter_angstrom, ring.protein.diameter_angstrom, "A")
    assert holding_particles(model, session, None) == holding_particles(model, session, given) == [3]
    assert holding_particles(model, empty, None) == holding_particles(model, empty, given) == []


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


@pytest.mark.parametrize("name", ["general", "cryotransformer", "cryosegnet", "segmentation-crf", "cryoemmae"])
def test_a_run_that_holds_no_particle_is_not_measured_again_micrograph_by_micrograph(name):
    few = next(one for one in suite_sets(levels=("easy",)) if one.protein.family == "ring")
    micrograph = next(iter(few.micrographs())).micrograph
    assert len(GeneralPicker().pick(micrograph)) > 0
    of_run = Survey(sentence="nothing looks like a particle at any size")
    assert len(make_picker(name).pick(micrograph, of_run)) == 0
