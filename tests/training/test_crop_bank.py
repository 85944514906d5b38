"""The bank of simulated crops: the same crops from disk as made, turned ones with their truth turned along."""

from dataclasses import asdict

import numpy as np
import pytest
from own_process import said_by

from cryopick.errors import OutputError, SettingsError
from cryopick.training.crop_bank import SimulatedCrops, turned

KEEP = """
import sys
from cryopick.errors import OutputError
from cryopick.training.crop_bank import SimulatedCrops
bank = SimulatedCrops(crop_px=96, seed=5, count=8, shard_crops=4)
try:
    bank.keep(int(sys.argv[1]), lambda made, crops: print(made, "of", crops))
except OutputError as error:
    print(error)
"""
"""As the fixture's bank, made beforehand by processes beside."""


@pytest.fixture
def bank(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOPICK_CROPS", str(tmp_path / "crops"))
    return SimulatedCrops(crop_px=96, seed=5, count=8, shard_crops=4)


def test_a_crop_read_from_disk_is_the_crop_that_was_made(bank, tmp_path):
    made = SimulatedCrops(crop_px=96, seed=5, count=0).crop(2)
    bank.crop(2)
    assert len(list((tmp_path / "crops").rglob("*.npz"))) == 1
    read = SimulatedCrops(crop_px=96, seed=5, count=8, shard_crops=4).crop(2)
    assert np.abs(read.image - made.image).max() < 1e-3 * np.abs(made.image).max()
    for name in ("xy_px", "diameter_px", "snr", "visibility", "instances", "junk"):
        assert np.array_equal(getattr(read, name), getattr(made, name)), name
    assert asdict(read.optics) == pytest.approx(asdict(made.optics))


def test_later_passes_show_the_same_crops_in_another_order(bank):
    def fingerprint(crop):
        return float(np.sort(crop.image.ravel())[::97].sum())  # no turn changes it

    first = [fingerprint(bank.crop(i)) for i in range(8)]
    second = [fingerprint(bank.crop(8 + i)) for i in range(8)]
    assert sorted(first) == pytest.approx(sorted(second))
    assert first != pytest.approx(second)


def test_crops_made_beforehand_on_all_cores_are_those_that_would_be_made_later(bank, tmp_path):
    bank.crop(4)
    (already,) = tmp_path.rglob("*.npz")
    written_at = already.stat().st_mtime_ns
    assert said_by(KEEP, "99").splitlines() == ["4 of 8", "8 of 8"]
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    assert already.stat().st_mtime_ns == written_at
    made = SimulatedCrops(crop_px=96, seed=5, count=0).crop(2)
    assert np.array_equal(bank.crop(2).xy_px, made.xy_px)
    bank.keep(99, lambda *_: pytest.fail("nothing is left to make"))


def test_no_more_crops_are_made_beforehand_than_are_asked_for(bank, tmp_path):
    said_by(KEEP, "3")
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["00000.npz"]
    SimulatedCrops(crop_px=96, seed=5, count=0).keep(3, lambda *_: pytest.fail("none of these is kept"))


def test_a_full_folder_is_named_though_another_process_found_it_so(bank, tmp_path):
    (tmp_path / "crops").write_text("")
    told = said_by(KEEP, "8")
    assert "CRYOPICK_CROPS names another folder" in told
    assert "Traceback" not in told


def test_other_settings_have_other_files(bank, tmp_path):
    bank.crop(0)
    SimulatedCrops(crop_px=96, seed=6, count=8, shard_crops=4).crop(0)
    assert len(list((tmp_path / "crops").iterdir())) == 2


def test_a_turned_crop_keeps_every_particle_on_its_own_bright_pixel():
    crop = SimulatedCrops(crop_px=96, seed=5, count=0).crop(1)
    marked = np.array([[10.0, 20.0], [70.0, 33.0], [0.0, 95.0]])
    image = np.zeros((96, 96), np.float32)
    for value, (x, y) in enumerate(marked, start=1):
        image[int(y), int(x)] = value
    crop = type(crop)(**{**vars(crop), "image": image, "xy_px": marked, "instances": image.astype(np.int32)})
    seen = set()
    for quarter_turns in range(4):
        for is_mirrored in (False, True):
            other = turned(crop, quarter_turns=quarter_turns, is_mirrored=is_mirrored)
            x, y = other.xy_px.astype(int).T
            assert other.image[y, x].tolist() == [1, 2, 3]
            assert other.instances[y, x].tolist() == [1, 2, 3]
            seen.add(other.image.tobytes())
    assert len(seen) == 8


def test_the_share_of_far_scales_is_the_one_asked_for():
    near = SimulatedCrops(crop_px=96, far_scale_share=0.0, seed=3, count=0)
    sizes = np.concatenate([near.crop(i).diameter_px for i in range(12)])
    assert sizes.min() >= 20 * 0.7 * 0.5  # a second species may be half as large
    assert sizes.max() <= 20 * 1.6 * 1.5
    far = SimulatedCrops(crop_px=96, far_scale_share=1.0, seed=3, count=0)
    sizes = np.concatenate([far.crop(i).diameter_px for i in range(12)])
    assert sizes.max() > 20 * 1.6 * 1.5 or sizes.min() < 20 * 0.7 * 0.5


def test_impossible_settings_and_folders_are_named(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="multiple of 256"):
        SimulatedCrops(count=100)
    with pytest.raises(SettingsError, match="far_scale_share is 2"):
        SimulatedCrops(far_scale_share=2)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRYOPICK_CROPS", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="CRYOPICK_CROPS names another folder"):
        SimulatedCrops(crop_px=96, count=1, shard_crops=1).crop(0)


def test_whole_micrographs_take_their_share_and_the_other_crops_stay_what_they_were():
    mixed = SimulatedCrops(crop_px=96, far_scale_share=0.1, seed=5, count=0, micrograph_share=0.5)
    painted = SimulatedCrops(crop_px=96, far_scale_share=0.1, seed=5, count=0)
    for index in (0, 1):  # of 20 crops two have any size; ten are micrographs; then painted ones follow
        assert np.array_equal(mixed.crop(index).image, painted.crop(index).image)
    for index, number in ((2, 0), (11, 9), (22, 10)):
        assert np.array_equal(mixed.crop(index).image, mixed._micrographs.crop(number).image)
    assert np.array_equal(mixed.crop(12).image, mixed._gentle.crop(12).image)


def test_the_folder_of_the_crops_changes_with_the_share_of_micrographs_and_only_then():
    keys = {SimulatedCrops(crop_px=96, seed=5, micrograph_share=share)._key for share in (0.0, 0.5, 0.7)}
    assert len(keys) == 3
    once_used = SimulatedCrops(crop_px=96, seed=5, micrograph_share=0.5)
    before = once_used._key
    once_used._micrographs.crop(0)
    assert SimulatedCrops(crop_px=96, seed=5, micrograph_share=0.5)._key == before


@pytest.mark.parametrize("shares", [(0.6, 0.5), (-0.1, 0.0), (0.0, 1.2)])
def test_shares_that_cannot_be_are_refused(shares):
    with pytest.raises(SettingsError, match="share"):
        SimulatedCrops(far_scale_share=shares[0], micrograph_share=shares[1])
