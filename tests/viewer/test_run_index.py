"""Numbers at any cut, against brute force and against `cryopick rethreshold`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from cryopick.processing.local_power import coarsening, local_power, power_at
from cryopick.processing.probability import expected_scores
from cryopick.runs.record import read_record
from cryopick.viewer.sources import LOOK_AT_ALL_EVERY, RunSource
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


def test_micrographs_that_are_believed_in_part_count_as_a_comparison_of_each_score_says():
    rng = np.random.default_rng(1)
    index, scores = RunIndex(lambda score: np.nan_to_num(score.astype(np.float64))), {}
    for number in range(60):
        # few different values, so that many scores stand exactly at the cut, and some that are unknown
        score = rng.choice(np.float32([0.1, 0.3, 0.5, 0.7, np.nan]), int(rng.integers(0, 40)))
        scores[f"m{number}"] = score
        power = np.ones(len(score), np.float32)
        index.put(f"m{number}", Part(stamp="s", score=score, power=power, candidates=len(score)))
    belief = {key: float(rng.choice([0.0, 0.3, 0.9, 1.0])) for key in list(scores)[:40]}
    for threshold in (LOWEST, 0.0, 0.09, 0.3, 0.45, 0.7, 0.71):
        found = index.at(threshold, belief=belief)
        cut = np.float32(threshold)
        kept = [
            (score * np.float32(belief.get(key, 1.0)) >= cut) | (np.isnan(score) & (threshold <= LOWEST))
            for key, score in scores.items()
        ]
        assert found.per_micrograph.tolist() == [int(one.sum()) for one in kept]
        if found.kept:
            every = [np.nan_to_num(score[one]) for score, one in zip(scores.values(), kept, strict=True)]
            assert found.precision == pytest.approx(np.concatenate(every).mean(dtype=np.float64))


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


def test_power_is_measured_on_a_smaller_picture_where_particles_are_wide_and_ranks_the_same():
    import cv2

    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.normal(0, 1, (768, 768)).astype(np.float32), (0, 0), 1.5)
    for x, y, height in rng.uniform([0, 0, 0.1], [768, 768, 1.5], (60, 3)):
        cv2.circle(image, (int(x), int(y)), 50, float(height), -1)
    diameter = 130.0
    assert coarsening(diameter) == 4
    sigmas = (diameter / 16, diameter, diameter / 3)
    fine, coarse = (cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for sigma in sigmas[:2])
    full = cv2.GaussianBlur((fine - coarse) ** 2, (0, 0), sigmas[2], borderType=cv2.BORDER_REFLECT)
    full /= np.median(full)
    small = local_power(image, diameter_px=diameter)
    assert small.shape == (192, 192)
    xy = rng.uniform(0, 767, (500, 2))
    at_full, at_small = (power_at(one, xy, shape_yx=(768, 768)) for one in (full, small))
    np.testing.assert_allclose(at_small, at_full, rtol=0.15)
    assert spearmanr(at_small, at_full).statistic > 0.99


def test_a_run_that_grows_or_changes_is_seen_and_one_that_rests_is_not_read_again(run: Path, monkeypatch):
    source = RunSource(run)
    folder = source.folder
    (first, *_rest) = folder.records()
    read = []
    monkeypatch.setattr("cryopick.viewer.sources.read_record", lambda *a, **k: read.append(1) or read_record(*a, **k))
    assert source.refresh() == []
    folder.write_record(replace(first, seconds=first.seconds + 1))  # the folder changed just now
    assert len(source.refresh()) == 1
    new = replace(first, name="new/one.mrc", key="new/one")
    folder.write_record(new)
    assert source.refresh() == [len(source.rows) - 1]
    assert source.rows[-1].name == "new/one.mrc"
    # long after, nothing is looked at until a folder's time changes, or a dozen looks later
    monkeypatch.setattr("cryopick.viewer.sources.time.time", lambda: 4e9)
    source.refresh()
    listed = []
    monkeypatch.setattr("cryopick.viewer.sources.os.walk", lambda top: listed.append(top) or [])
    for _ in range(LOOK_AT_ALL_EVERY):
        source.refresh()
    assert len(listed) == 1
    assert len(read) == 2
