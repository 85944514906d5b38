"""Training crops: reproducible, exactly labelled, and as hard as the recipe says."""

from __future__ import annotations

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.simulation.crops import CropGenerator, CropRanges
from cryopick.simulation.recipe import DetectorRanges, Recipe


def small_generator(seed: int = 7, **ranges: object) -> CropGenerator:
    return CropGenerator(
        seed=seed,
        crop_px=128,
        pool_size=3,
        views_per_species=8,
        ranges=CropRanges(**ranges),  # type: ignore[arg-type]
    )


def test_crop_depends_on_seed_and_index_alone_not_on_the_order_of_asking() -> None:
    first, second = small_generator(), small_generator()
    forwards = [first.crop(i) for i in (0, 1, 5)]
    backwards = [second.crop(i) for i in (5, 1, 0)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.image.tobytes() == other.image.tobytes()
        assert one.instances.tobytes() == other.instances.tobytes()
        np.testing.assert_array_equal(one.xy_px, other.xy_px)
    assert small_generator(seed=8).crop(0).image.tobytes() != forwards[0].image.tobytes()


def test_two_workers_together_make_the_same_crops_as_one() -> None:
    one = small_generator().crops(0, 1)
    alone = [next(one).image.tobytes() for _ in range(4)]
    even, odd = small_generator().crops(0, 2), small_generator().crops(1, 2)
    shared = [next(worker).image.tobytes() for worker in (even, odd, even, odd)]
    assert shared == alone


def test_centres_lie_inside_and_off_the_junk_and_have_their_silhouette() -> None:
    generator = small_generator()
    seen = 0
    for index in range(30):
        crop = generator.crop(index)
        assert crop.image.shape == crop.instances.shape == crop.junk.shape == (128, 128)
        assert np.isfinite(crop.image).all()
        for number, (x, y) in enumerate(crop.xy_px, start=1):
            assert -0.5 <= x < 127.5
            assert -0.5 <= y < 127.5
            assert not crop.junk[round(y), round(x)]
            rows, columns = np.nonzero(crop.instances == number)
            if len(rows):
                reach = np.hypot(rows - y, columns - x).max()
                assert reach <= 0.75 * crop.diameter_px[number - 1] + 2
            seen += 1
        assert np.all((crop.visibility >= 0) & (crop.visibility <= 1))
    assert seen > 100


def test_empty_and_junk_only_crops_hold_no_particle() -> None:
    assert all(len(small_generator(empty_probability=1.0).crop(i).xy_px) == 0 for i in range(3))
    generator = small_generator(empty_probability=0.0, junk_only_probability=1.0)
    crops = [generator.crop(i) for i in range(6)]
    assert all(len(crop.xy_px) == 0 for crop in crops)
    assert sum(crop.junk.any() for crop in crops) >= 5


def test_particles_are_darker_than_their_surroundings_on_average() -> None:
    generator = small_generator(detection_snr=(25.0, 30.0), empty_probability=0.0, junk_only_probability=0.0)
    contrast = []
    for index in range(40):
        crop = generator.crop(index)
        is_particle = (crop.instances > 0) & ~crop.junk
        background = (crop.instances == 0) & ~crop.junk
        if is_particle.sum() > 200 and background.sum() > 200:
            spread = crop.image[background].std()
            contrast.append((crop.image[is_particle].mean() - crop.image[background].mean()) / spread)
    assert np.mean(np.array(contrast) < 0) > 0.8


def test_impossible_ranges_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"detection_snr.*lowest value is above the highest"):
        CropRanges(detection_snr=(5.0, 3.0))
    with pytest.raises(SettingsError, match="crops are made without drift"):
        CropGenerator(Recipe(detector=DetectorRanges(drift_angstrom=(0.0, 20.0))))
    with pytest.raises(SettingsError, match="particle_px_range"):
        CropGenerator(crop_px=64, particle_px_range=(30.0, 40.0))
