"""Crops that are whole micrographs: reproducible in any order, and their truth follows the resampling."""

from dataclasses import replace

import numpy as np
import pytest

from cryopick.geometry.units import Range
from cryopick.simulation.micrograph import simulate_micrograph
from cryopick.simulation.micrograph_crops import HARD_FAMILIES, KEPT_SPECIES, MicrographCrops, _imager, as_crop
from cryopick.simulation.recipe import Recipe, named_recipe
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.protein_families import FAMILY_BY_NAME
from cryopick.simulation.specimens.proteins import FAMILIES, random_protein

CLEAN = named_recipe("clean")


def crops(seed: int = 3, *, diameter_error: Range = (1.0, 1.5)) -> MicrographCrops:
    ranges = {"diameter_error": diameter_error, "detection_snr": (30.0, 30.0)}
    return MicrographCrops(CLEAN, seed, crop_px=128, particle_px=20.0, **ranges)


@pytest.fixture(scope="module")
def dirty():
    """A micrograph with particles on carbon, which are not to be picked."""
    recipe = Recipe(shape_yx=(360, 360), pixel_size_angstrom=4.0)
    recipe = replace(recipe, dirt=replace(recipe.dirt, carbon_probability=1.0, gold_probability=0.0))
    recipe = replace(recipe, layout=replace(recipe.layout, coverage=(0.4, 0.4), empty_probability=0.0))
    protein = random_protein(np.random.default_rng(0), diameter_angstrom=120.0, family="globular")
    imager = SpecimenImager(Specimen(protein, 120.0), 4.0)
    found = (simulate_micrograph(recipe, 5, imagers=[imager], index=i, target_snr=20.0) for i in range(20))
    return next(one for one in found if 3 <= one.is_on_junk.sum() < len(one.xy_px) - 3)


def test_a_crop_depends_on_seed_and_number_alone_not_on_the_order_of_asking():
    first, second = crops(), crops()
    forwards = [first.crop(i) for i in (0, 1, KEPT_SPECIES * 3)]
    backwards = [second.crop(i) for i in (KEPT_SPECIES * 3, 1, 0)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert np.array_equal(one.xy_px, other.xy_px)
    assert crops(seed=4).crop(0).image.tobytes() != forwards[0].image.tobytes()


def test_no_more_species_are_kept_than_it_says():
    for number in range(KEPT_SPECIES + 3):
        _imager(3, number, 0.0)
    assert _imager.cache_info().currsize == KEPT_SPECIES


def test_the_darkest_places_are_where_the_truth_says_that_particles_are():
    found = [crops().crop(i) for i in range(4)]
    assert sum(len(one.xy_px) for one in found) > 10
    for crop in found:
        assert crop.image.shape == crop.instances.shape == crop.junk.shape == (128, 128)
        on_particles = np.isin(crop.instances, 1 + np.arange(len(crop.xy_px)))
        assert crop.image[on_particles].mean() < crop.image[crop.instances == 0].mean()


def test_particles_have_the_size_that_was_asked_for():
    for index in range(3):
        assert crops(diameter_error=(1.5, 1.5)).crop(index).diameter_px == pytest.approx(30.0, rel=0.01)


def test_places_sizes_and_pixels_follow_the_resampling(dirty):
    crop = as_crop(dirty, crop_px=180)  # half of the stored side
    kept = ~dirty.is_on_junk
    assert crop.xy_px == pytest.approx((dirty.xy_px[kept] + 0.5) / 2 - 0.5)
    assert crop.diameter_px == pytest.approx(dirty.diameter_px[kept] / 2)
    assert crop.pixel_size_angstrom == pytest.approx(8.0)
    means = dirty.micrograph.pixels.reshape(180, 2, 180, 2).mean(axis=(1, 3))
    assert crop.image == pytest.approx(means, rel=1e-4)


def test_particles_on_junk_are_not_to_be_picked_and_numbered_last(dirty):
    crop = as_crop(dirty, crop_px=360)
    kept = np.flatnonzero(~dirty.is_on_junk)
    assert len(crop.xy_px) == len(kept) < len(dirty.xy_px)
    for number, particle in enumerate(kept, start=1):
        assert np.array_equal(crop.instances == number, dirty.instances == particle + 1)
    others = np.isin(dirty.instances - 1, np.flatnonzero(dirty.is_on_junk))
    assert (crop.instances[others] > len(kept)).all()
    assert np.array_equal(crop.instances == 0, dirty.instances == 0)
    assert np.array_equal(crop.junk, dirty.junk)


def test_families_come_in_the_sizes_in_which_they_exist_and_hard_ones_twice_as_often():
    specimens = [_imager(3, number, 0.0).specimen for number in range(140)]
    names = [specimen.name.split("-")[0] for specimen in specimens]
    assert set(names) == set(FAMILIES)
    for name, specimen in zip(names, specimens, strict=True):
        kind = FAMILY_BY_NAME[name]
        assert kind.smallest_angstrom <= specimen.diameter_angstrom <= kind.largest_angstrom
    hard = sum(name in HARD_FAMILIES for name in names)
    share = 2 * len(HARD_FAMILIES) / (len(FAMILIES) + len(HARD_FAMILIES))
    assert hard / len(names) == pytest.approx(share, abs=0.1)
