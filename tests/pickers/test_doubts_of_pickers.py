"""Every picker that goes by what the `general` network sees tells the run what does not fit, in the same sentences."""

from __future__ import annotations

import pytest

from cryopick.geometry.units import parse_length
from cryopick.pickers.registry import make_picker
from cryopick.simulation.suite import suite_sets

PICKERS = ("general", "cryotransformer", "cryosegnet", "segmentation-crf", "cryoemmae")


@pytest.fixture(scope="module")
def micrograph():
    """Of rings of 120 Å, 50 px."""
    ring = next(one for one in suite_sets(levels=("easy",)) if one.protein.family == "ring")
    return next(ring.micrographs()).micrograph


@pytest.mark.parametrize("name", PICKERS)
def test_a_radius_given_for_the_diameter_and_inverted_contrast_are_told_by_every_picker(name, micrograph):
    picker = make_picker(name, diameter=parse_length("60A"))
    assert "the radius was given" in picker.survey([micrograph]).size_doubt
    inverted = picker.survey([micrograph.inverted()])
    assert "--contrast bright" in inverted.contrast_doubt
    assert make_picker(name, diameter=parse_length("120A")).survey([micrograph]).doubts == ()


def test_with_several_species_the_contrast_is_doubted_and_no_size(micrograph):
    picker = make_picker("cryoemmae", species=(parse_length("60A"), parse_length("120A")))
    seen = picker.survey([micrograph.inverted()])
    assert "--contrast bright" in seen.contrast_doubt
    assert (seen.size_doubt, seen.particle_size) == (None, None)
    assert picker.survey([micrograph]).doubts == ()
