"""Numbers at any cut, against brute force and against `cryopick rethreshold`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryopick.processing.local_power import local_power, power_at
from cryopick.processing.probability import expected_scores
from cryopick.viewer.sources import RunSource
from cryopick.workflows.rethreshold import rethreshold
from cryopick.workflows.run_index import LOWEST, Part, RunIndex


def filled_index(*, has_probabilities: bool = True) -> RunIndex:
    rng = np.random.default_rng(0)
    index = RunIndex((lambda score: score.astype(np.float64)) if has_probabilities else None)
    for number, count in enumerate((5, 0, 30, 1, 0)):
        score, power = rng.uniform(0, 1, count), rng.uniform(0.2, 4, count)
        index.put(f"m{number}", Part(stamp="s", score=np.float32(score), power=np.float32(power), candidates=count))
    return index


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.77, 1.5])
@pytest.mark.parametrize("limits", [(0.0, np.inf), (1.0, 2.0)])
def test_counts_and_expectations_are_those_of_brute_force(threshold: float, limits: tuple[float, float]):
    index = filled_index()
    found = index.at(threshold, power_limits=limits)
    every = [index.part(key) for key in index.names()]
    kept = [
        [
            s
            for s, p in zip(one.score, one.power, strict=True)
            if s >= np.float32(threshold) and limits[0] <= p <= limits[1]
        ]
        for one in every
    ]
    assert found.per_micrograph.tolist() == [len(one) for one in kept]
    assert found.kept == sum(map(len, kept))
    if found.kept:
        p = np.concatenate([one.score for one in every]).astype(np.float64)
        assert found.precision == pytest.approx(np.mean([s for one in kept for s in one]))
        if limits[1] == np.inf:
            assert (found.precision, found.recall) == pytest.approx(expected_scores(p, threshold)[:2])
    else:
        assert found.precision is None


def test_the_curve_has_the_exact_numbers_at_its_thresholds():
    index = filled_index()
    curve = index.curve()
    for at in (0, 250, 700, 900):
        exact = index.at(float(curve.threshold[at]))
        assert curve.kept[at] == exact.kept
        if exact.kept:
            assert (curve.precision[at], curve.recall[at]) == pytest.approx((exact.precision, exact.recall), rel=1e-5)
    assert curve.histogram.sum() == 36


def test_scores_that_are_no_probabilities_have_counts_only():
    found = filled_index(has_probabilities=False).at(0.5)
    assert found.precision is None
    assert found.kept > 0


def test_a_score_that_is_unknown_passes_the_lowest_cut_alone():
    index = RunIndex()
    unknown = np.array([np.nan, 0.5], np.float32)
    index.put("m", Part(stamp="s", score=unknown, power=unknown, candidates=2))
    assert [index.at(cut).kept for cut in (LOWEST, -1.0, 0.6)] == [2, 1, 0]


def test_a_saved_index_comes_back_where_nothing_changed(tmp_path: Path):
    index = filled_index()
    index.save(tmp_path / "index.npz")
    loaded = RunIndex(lambda score: score.astype(np.float64))
    assert loaded.load(tmp_path / "index.npz", stamps={"m0": "s", "m2": "other", "m3": "s"}) == 2
    assert loaded.names() == ["m0", "m3"]
    np.testing.assert_array_equal(loaded.part("m0").score, index.part("m0").score)
    (tmp_path / "index.npz").write_bytes(b"PK\x03\x04 damaged")
    assert RunIndex().load(tmp_path / "index.npz", stamps={"m0": "s"}) == 0


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_the_numbers_are_those_of_rethreshold(run: Path, threshold: float):
    source = RunSource(run)
    for number in range(len(source.rows)):
        source.index_one(number)
    found = source.index.at(threshold)
    summary = rethreshold(run, threshold)
    assert found.kept == summary.particles
    per = dict(zip(source.index.names(), found.per_micrograph.tolist(), strict=True))
    for one in source.folder.records():
        picks = (run / "picks" / f"{one.key}_picks.star").read_text()
        assert per[one.key] == sum(line[:1].isdigit() for line in picks.splitlines() if line.strip())


def test_local_power_is_high_on_what_is_rough_and_the_same_on_a_smaller_picture():
    import cv2

    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (800, 800)).astype(np.float32)
    image[500:700, 100:300] += 8 * cv2.GaussianBlur(rng.normal(0, 1, (200, 200)).astype(np.float32), (0, 0), 3)
    full = local_power(image, diameter_px=40)
    small = local_power(cv2.resize(image, (400, 400), interpolation=cv2.INTER_AREA), diameter_px=20)
    xy = rng.uniform(50, 750, (200, 2))
    at_full, at_small = (power_at(one, xy, shape_yx=(800, 800)) for one in (full, small))
    rough = (xy[:, 0] < 280) & (xy[:, 0] > 120) & (xy[:, 1] > 520) & (xy[:, 1] < 680)
    assert at_full[rough].min() > 3 * np.median(at_full[~rough])
    assert np.corrcoef(np.argsort(np.argsort(at_full)), np.argsort(np.argsort(at_small)))[0, 1] > 0.7
    assert np.isnan(local_power(np.full((50, 50), 3.0, np.float32), diameter_px=10)).all()
