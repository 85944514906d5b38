"""Sessions: shares that are met, one regime, kinds that are what they say, and a suite of them that stays as it is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import fft

from cryopick.errors import SettingsError
from cryopick.io.star import read_star
from cryopick.simulation.micrograph import SimulatedMicrograph, simulate_micrograph
from cryopick.simulation.recipe import Recipe, named_recipe
from cryopick.simulation.scene.optics import drift_transfer
from cryopick.simulation.series import SimulationSettings, read_settings
from cryopick.simulation.session import (
    KINDS,
    TYPICAL_SHARES,
    draw_regime,
    parse_session,
    session_kinds,
    simulate_of_kind,
)
from cryopick.simulation.specimens.imaging import Specimen, SpecimenImager
from cryopick.simulation.specimens.proteins import random_protein
from cryopick.simulation.suite import SESSION_PROTEINS, SUITE_PROTEINS, suite_sessions
from cryopick.workflows.simulate import simulate

PIXEL_SIZE = 5.0


def small_recipe() -> Recipe:
    return replace(Recipe(), shape_yx=(300, 340), pixel_size_angstrom=PIXEL_SIZE)


@pytest.fixture(scope="module")
def imager() -> SpecimenImager:
    volume = random_protein(
        np.random.default_rng(1), diameter_angstrom=150.0, family="globular", voxel_size_angstrom=PIXEL_SIZE
    )
    return SpecimenImager(Specimen(volume, 150.0), PIXEL_SIZE)


@pytest.fixture(scope="module")
def one_of_each(imager: SpecimenImager) -> dict[str, SimulatedMicrograph]:
    regime = draw_regime(small_recipe(), 11, imagers=[imager], snr=12.0)
    return {kind: simulate_of_kind(regime, kind, 11, imagers=[imager], index=index) for index, kind in enumerate(KINDS)}


# ------------------------------------------------------------------------------------------------------------- shares


@pytest.mark.parametrize(
    ("weights", "count", "expected"),
    [
        ({"full": 0.4, "empty": 0.6}, 10, {"full": 4, "empty": 6}),
        ({"full": 2, "empty": 3}, 10, {"full": 4, "empty": 6}),
        ({"full": 1, "empty": 20}, 21, {"full": 1, "empty": 20}),
        ({"full": 0.1, "empty": 0.2, "carbon": 0.7}, 10, {"full": 1, "empty": 2, "carbon": 7}),  # 0.7 * 10 is not 7
        ({"full": 1, "sparse": 1, "empty": 1}, 4, {"full": 2, "sparse": 1, "empty": 1}),
        ({"full": 1, "empty": 0}, 3, {"full": 3}),
    ],
)
def test_shares_are_met_exactly_up_to_rounding(weights: dict[str, float], count: int, expected: dict[str, int]) -> None:
    assert Counter(session_kinds(weights, count=count, seed=5)) == expected


@pytest.mark.parametrize("count", [1, 7, 33])
def test_no_share_is_off_by_a_whole_micrograph(count: int) -> None:
    made = Counter(session_kinds(TYPICAL_SHARES, count=count, seed=5))
    assert sum(made.values()) == count
    for kind, share in TYPICAL_SHARES.items():
        assert abs(made[kind] - share * count) < 1


def test_the_seed_decides_the_order_and_nothing_else() -> None:
    orders = {session_kinds({"full": 1, "empty": 1}, count=12, seed=seed) for seed in range(6)}
    assert len(orders) > 3
    assert {tuple(sorted(order)) for order in orders} == {("empty",) * 6 + ("full",) * 6}
    assert session_kinds({"full": 1, "empty": 1}, count=12, seed=2) in orders


def test_words_become_weights() -> None:
    assert parse_session("full=0.4, empty=0.6") == {"full": 0.4, "empty": 0.6}
    assert parse_session("typical") == TYPICAL_SHARES
    assert set(TYPICAL_SHARES) == set(KINDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("full=1,broken=1", "'broken' is unknown; known: full, sparse, empty"),
        ("full", "the weight of full is ''"),
        ("full=-1", "the weight of full is '-1'"),
        ("full=nan", "the weight of full is 'nan'"),
        ("full=1,full=2", "full is given twice"),
        ("full=0", "all weights are 0"),
        ("", "kind of micrograph '' is unknown"),
    ],
)
def test_words_that_mean_no_session_are_refused(words: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_session(words)


# ------------------------------------------------------------------------------------------------------------- regime


def test_all_micrographs_share_microscope_camera_dose_and_look(one_of_each: dict[str, SimulatedMicrograph]) -> None:
    shared = {
        (
            one.ctf.voltage_kv,
            one.ctf.spherical_aberration_mm,
            one.ctf.amplitude_contrast,
            one.conditions.dose_e_per_angstrom2,
            one.conditions.mtf_nyquist,
            one.conditions.structure_factor,
            one.conditions.look,
        )
        for one in one_of_each.values()
    }
    assert len(shared) == 1


def test_defocus_and_ice_change_a_little_but_for_the_kinds_that_change_them(
    one_of_each: dict[str, SimulatedMicrograph],
) -> None:
    defocus = {kind: (one.ctf.defocus_u_um + one.ctf.defocus_v_um) / 2 for kind, one in one_of_each.items()}
    ice = {kind: one.conditions.ice_angstrom for kind, one in one_of_each.items()}
    usual = [value for kind, value in defocus.items() if kind != "near-focus"]
    assert 1 < max(usual) / min(usual) <= 1.2 / 0.8
    assert defocus["near-focus"] < 0.5 * min(usual)
    usual = [value for kind, value in ice.items() if kind != "thick-ice"]
    assert 1 < max(usual) / min(usual) <= 1.15 / 0.85
    assert ice["thick-ice"] > 3 * max(usual)


def test_other_seeds_draw_other_regimes(imager: SpecimenImager) -> None:
    drawn = {draw_regime(small_recipe(), seed, imagers=[imager]).recipe.optics.defocus_um for seed in range(4)}
    assert len(drawn) == 4
    assert draw_regime(small_recipe(), 3, imagers=[imager]).recipe.optics.defocus_um in drawn


@pytest.mark.parametrize("snr", [6.0, 16.0])
def test_full_micrographs_of_a_session_have_about_the_snr_that_was_asked(imager: SpecimenImager, snr: float) -> None:
    recipe = replace(named_recipe("clean"), shape_yx=(300, 340), pixel_size_angstrom=PIXEL_SIZE)
    regime = draw_regime(recipe, 2, imagers=[imager], snr=snr)
    full = [simulate_of_kind(regime, "full", 2, imagers=[imager], index=index) for index in range(3)]
    assert np.median(np.concatenate([one.snr for one in full])) == pytest.approx(snr, rel=0.15)
    focused = simulate_of_kind(regime, "near-focus", 2, imagers=[imager])
    assert np.median(focused.snr) < 0.9 * snr


# -------------------------------------------------------------------------------------------------------------- kinds


def test_only_kinds_that_say_so_hold_particles(one_of_each: dict[str, SimulatedMicrograph]) -> None:
    for kind, one in one_of_each.items():
        assert one.kind == kind
        assert bool(len(one.xy_px)) is KINDS[kind].has_particles, kind
        if not KINDS[kind].has_particles:
            assert not one.instances.any(), kind  # none reaches in from outside either
    assert 0 < len(one_of_each["sparse"].xy_px) < 0.35 * len(one_of_each["full"].xy_px)


def test_carbon_and_crystalline_ice_cover_most_and_are_junk(one_of_each: dict[str, SimulatedMicrograph]) -> None:
    assert one_of_each["carbon"].junk.mean() > 0.7
    assert one_of_each["crystalline"].junk.mean() > 0.5  # between grains nothing is told from clean ice
    assert "carbon" in one_of_each["carbon"].conditions.dirt
    assert all("crystalline" not in one_of_each[kind].conditions.dirt for kind in KINDS if kind != "crystalline")


def spread_along_and_across(image: np.ndarray, *, angle_deg: float) -> tuple[float, float]:
    """Mean power at 0.1 to 0.2 cycles per pixel within 20 degrees of a direction, and of the one across it."""
    power = np.abs(fft.fft2(image - image.mean())) ** 2
    y, x = fft.fftfreq(image.shape[0])[:, None], fft.fftfreq(image.shape[1])[None, :]
    radius, angle = np.hypot(y, x), np.rad2deg(np.arctan2(y, x))
    ring = (radius > 0.1) & (radius < 0.2)

    def mean_near(direction_deg: float) -> float:
        off = np.abs((angle - direction_deg + 90) % 180 - 90)
        return float(power[ring & (off < 20)].mean())

    return mean_near(angle_deg), mean_near(angle_deg + 90)


def test_drift_takes_power_along_its_direction_and_leaves_it_across(imager: SpecimenImager) -> None:
    clean = replace(named_recipe("noise-light"), shape_yx=(300, 340), pixel_size_angstrom=PIXEL_SIZE)
    drifting = replace(clean, detector=replace(clean.detector, drift_angstrom=(40.0, 40.0)))
    still, moved = (simulate_micrograph(recipe, 4, imagers=[imager]) for recipe in (clean, drifting))
    angle = moved.conditions.drift_angle_deg
    assert (still.conditions.drift_angstrom, moved.conditions.drift_angstrom) == (0.0, 40.0)
    along, across = spread_along_and_across(still.micrograph.pixels, angle_deg=angle)
    assert along == pytest.approx(across, rel=0.6)
    along, across = spread_along_and_across(moved.micrograph.pixels, angle_deg=angle)
    assert along < 0.25 * across
    np.testing.assert_array_equal(moved.xy_px, still.xy_px)  # the middle of the way
    assert np.median(moved.snr) < np.median(still.snr)


def test_drift_is_the_mean_over_the_way() -> None:
    """Against shifting a delta by whole pixels and averaging."""
    smeared = np.zeros((32, 32))
    smeared[0, [0, 1, 2, -1, -2]] = 1 / 5
    expected = fft.rfft2(smeared).real  # the Dirichlet kernel, close to the sinc at low frequencies
    found = drift_transfer((32, 32), drift_px=5.0, angle_deg=0.0)
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=0.02)
    np.testing.assert_allclose(found[:, 0], 1.0)
    turned = drift_transfer((32, 32), drift_px=5.0, angle_deg=90.0)
    np.testing.assert_allclose(turned[:16, 0], found[0, :16], atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- files


def settings(**changes: object) -> SimulationSettings:
    kinds = session_kinds({"full": 1, "empty": 2}, count=3, seed=8)
    changes = {"session": kinds, "snr": 10.0, **changes}
    return SimulationSettings(seed=8, diameter_angstrom=(150.0, 150.0), recipe=small_recipe(), **changes)  # type: ignore[arg-type]


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_workers_write_the_same_session_as_one_that_was_stopped(tmp_path: Path) -> None:
    simulate(tmp_path / "one", settings(), count=1)
    resumed = simulate(tmp_path / "one", settings(), count=3)
    simulate(tmp_path / "two", settings(), count=3, workers=2)
    assert resumed.made == 2
    assert resumed.kinds == {"full": 1, "empty": 2}
    assert files_in(tmp_path / "two") == files_in(tmp_path / "one")
    assert read_settings(tmp_path / "one") == settings()
    facts = [json.loads((tmp_path / "one" / "truth" / f"sim_000{n}.json").read_text()) for n in (1, 2, 3)]
    assert tuple(one["kind"] for one in facts) == settings().session
    assert [one["particles"] > 0 for one in facts] == [kind == "full" for kind in settings().session]
    table = read_star(tmp_path / "one" / "micrographs.star")["micrographs"]
    assert tuple(table.columns["cryopickKind"]) == settings().session


def test_impossible_sessions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the session has 3 micrographs"):
        simulate(tmp_path / "run", settings(), count=4)
    with pytest.raises(SettingsError, match="'fulll' is unknown"):
        settings(session=("fulll",))
    with pytest.raises(SettingsError, match="a session shows one protein"):
        settings(proteins=2)
    with pytest.raises(SettingsError, match="snr is 0"):
        settings(snr=0.0)
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------------------------------------- suite


def test_sessions_to_judge_share_no_protein_or_seed_with_those_to_choose_on_or_the_sets() -> None:
    choose, judge = (
        suite_sessions(purpose, arrangements=("mostly-empty", "lone", "mixed")) for purpose in ("choose", "judge")
    )
    assert not {one.seed for one in choose} & {one.seed for one in judge}
    assert not {one.protein for one in choose} & {one.protein for one in judge}
    assert not {*SESSION_PROTEINS["choose"], *SESSION_PROTEINS["judge"]} & set(SUITE_PROTEINS)
    assert len({one.name for one in choose + judge}) == len(choose + judge)
    assert len(suite_sessions("judge")) == 24


def test_three_of_five_micrographs_of_a_suite_session_hold_nothing_and_a_lone_one_stands_among_twenty() -> None:
    for one in suite_sessions("judge", levels=("easy",)):
        assert Counter(one.kinds) == {"full": 1, "sparse": 1, "empty": 3}
    for one in suite_sessions("judge", levels=("easy",), arrangements=("lone",)):
        assert Counter(one.kinds) == {"full": 1, "empty": 20}


def test_unknown_sessions_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="purpose 'test' is unknown; known: choose, judge"):
        suite_sessions("test")
    with pytest.raises(SettingsError, match="arrangement 'all' is unknown; known: mostly-empty, lone, mixed"):
        suite_sessions("choose", arrangements=("all",))
