"""Whether a slip in contrast or diameter is told, with its name, and nothing is said of what is right."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cryopick.geometry.units import Length, parse_length
from cryopick.heatmap.doubts import doubts_about_sample
from cryopick.heatmap.model import HeatmapModel, load_model
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.suite import suite_sets
from cryopick.types import Micrograph

SETS = {one.name: one for one in suite_sets()}


@cache
def model() -> HeatmapModel:
    return load_model(None)


@cache
def micrograph_of(name: str, *, coverage: float | None = None, snr: float | None = None) -> Micrograph:
    """The first micrograph of a set of the suite, or one like it that is fuller and clearer."""
    one = SETS[name]
    if coverage is None:
        return next(one.micrographs()).micrograph
    layout = replace(one.recipe.layout, coverage=(coverage, coverage), spacing_diameters=(0.9, 1.0))
    recipe = replace(one.recipe, layout=layout)
    return simulate_micrograph(recipe, 1, imagers=[one.imager()], index=0, name=name, target_snr=snr).micrograph


def diameter_of(name: str) -> Length:
    size = SETS[name].protein.diameter_angstrom
    return Length(size, size, "A")


@pytest.mark.parametrize("name", ["globular-easy", "barrel-medium", "ring-hard"])
def test_nothing_is_said_of_what_is_right_and_of_the_negative_the_contrast_is_doubted(name):
    micrograph, size = micrograph_of(name), diameter_of(name)
    right = doubts_about_sample(model(), [micrograph], given=size)
    assert (right.contrast, right.size) == (None, None)
    for given in (size, None):
        doubts = doubts_about_sample(model(), [micrograph.inverted()], given=given)
        assert "--contrast bright" in doubts.contrast
        assert doubts.size is None


def test_hollow_particles_side_by_side_look_like_particles_both_ways_and_are_told_apart():
    micrograph, size = micrograph_of("shell-easy", coverage=0.7, snr=60.0), diameter_of("shell-easy")
    right = doubts_about_sample(model(), [micrograph], given=size)
    assert (right.contrast, right.size) == (None, None)
    assert "--contrast bright" in (doubts_about_sample(model(), [micrograph.inverted()], given=size).contrast or "")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("60A", "the radius was given"),
        ("240A", "twice the diameter was given"),
        ("12A", "120A was meant"),
        ("12A", "12nm was meant"),
        ("1200A", "120A was meant"),
        ("120px", "120A was meant"),
        ("50A", "50px was meant"),
        ("55-65A", "particles look about"),
    ],
)
def test_a_slip_in_the_diameter_is_told_with_the_size_that_is_seen(given, told):
    doubts = doubts_about_sample(model(), [micrograph_of("ring-medium")], given=parse_length(given))  # 120 Å, 50 px
    assert doubts.contrast is None
    assert told in doubts.size
    assert f"the diameter {given} does not fit" in doubts.size
    assert doubts.size_seen.middle == pytest.approx(50 if doubts.size_seen.unit == "px" else 120, rel=0.2)


def test_large_images_are_averaged_before_and_say_the_same():
    small = micrograph_of("ring-medium")
    large = Micrograph(np.kron(small.pixels, np.ones((4, 4), np.float32)), name="large", pixel_size_angstrom=0.6)
    assert "the radius was given" in doubts_about_sample(model(), [large], given=parse_length("60A")).size
    assert doubts_about_sample(model(), [large], given=parse_length("120A")).size is None


@pytest.mark.parametrize("given", [None, "20px", "100px"])
def test_of_noise_nothing_is_said(given):
    rng = np.random.default_rng(3)
    noise = [Micrograph(rng.normal(size=(700, 700)).astype(np.float32)) for _ in range(3)]
    doubts = doubts_about_sample(model(), noise, given=given and parse_length(given))
    assert (doubts.contrast, doubts.size) == (None, None)


def test_one_micrograph_of_another_kind_does_not_speak_for_three():
    rng = np.random.default_rng(4)
    other = Micrograph(rng.normal(size=(700, 700)).astype(np.float32), pixel_size_angstrom=2.4)
    good = micrograph_of("ring-medium")
    doubts = doubts_about_sample(model(), [good, other, good], given=parse_length("60A"))
    assert "the radius was given" in doubts.size
    assert doubts_about_sample(model(), [other, good, other], given=parse_length("60A")).size is None
