"""Sparse micrographs like KLH's: rings and squares far apart, and micrographs with nothing but dirt."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cryopick.errors import TrainingError
from cryopick.geometry.units import Length
from cryopick.pickers.blob import BlobPicker
from cryopick.pickers.deepcryopicker.objects import SIDE, TOP
from cryopick.pickers.deepcryopicker.picker import DeepCryoPicker, label_run
from cryopick.pickers.deepcryopicker.size import measure_size
from cryopick.pickers.registry import make_picker
from sparse_barrels import Look, draw_crowd, draw_sparse_barrels, without_particles

LOOK = Look(ring_px=48.0, noise=0.9, dirt=2.0)
SIDE_PX = 660  # a third of a KLH micrograph in every way


@cache
def session():
    return tuple(draw_sparse_barrels(LOOK, seed=seed, side_px=SIDE_PX) for seed in (1, 2))


def micrographs():
    return [one.micrograph for one in session()]


def px(value):
    return Length(value, value, "px")


def test_seventeen_barrels_on_a_micrograph_have_a_size_and_are_hollow():
    size = measure_size(micrographs()[:1], diameter=None)
    assert size.is_hollow
    assert size.diameter.middle_px(None) == pytest.approx(48, rel=0.2)


@pytest.mark.parametrize("ring_px", [42.0, 46.0, 51.0])  # between the sizes that are tried, which are 19 % apart
def test_the_diameter_of_rings_is_read_off_their_edge(ring_px):
    look = replace(LOOK, ring_px=ring_px)
    drawn = [draw_sparse_barrels(look, seed=seed, side_px=SIDE_PX).micrograph for seed in (1, 2)]
    assert measure_size(drawn, diameter=None).diameter.middle_px(None) == pytest.approx(ring_px, rel=0.04)


def test_dirt_of_all_sizes_has_no_size():
    empty = [without_particles(LOOK, seed=seed, side_px=SIDE_PX) for seed in (1, 2)]
    assert measure_size(empty, diameter=None) is None
    with pytest.raises(TrainingError, match="saw no consistent particles"):
        DeepCryoPicker().survey(empty)
    for name in ("autocryopicker", "supercryopicker"):
        seen = make_picker(name).survey(empty)
        assert "saw no consistent particles" in seen.sentence
        assert len(make_picker(name).pick(empty[0], seen)) == 0


def test_right_diameter_takes_the_ring_for_the_particle_and_a_wrong_one_is_doubted():
    right = measure_size(micrographs(), diameter=px(48))
    assert (right.body, right.is_hollow, right.doubt) == (1.0, True, "")
    wrong = measure_size(micrographs(), diameter=px(34))
    assert "stand out" in wrong.doubt
    assert wrong.seen.middle_px(None) == pytest.approx(48, rel=0.2)
    with pytest.raises(TrainingError, match="give --diameter"):
        DeepCryoPicker(diameter=px(34)).survey(micrographs())
    seen = make_picker("supercryopicker", diameter=px(34)).survey(micrographs())
    assert seen.size_doubt
    assert seen.size_seen == wrong.seen


def test_labels_of_a_sparse_run_are_barrels_with_their_views():
    size = measure_size(micrographs(), diameter=px(48))
    labelled = label_run(micrographs(), size, preprocessing="corrected")
    right = wrong = false = 0
    for image, working, truth in zip(labelled.images, labelled.working, session(), strict=True):
        for xy, view in zip(
            working.scale.to_stored_xy(image.xy_px)[image.is_good], image.view[image.is_good], strict=True
        ):
            distance = np.hypot(*(truth.xy_px - xy).T)
            if distance.min() > 12:
                false += 1
            elif view == truth.view[distance.argmin()]:
                right += 1
            else:
                wrong += 1
    assert right >= 15
    assert wrong <= 0.1 * right
    assert false <= 0.2 * right
    assert {TOP, SIDE} == {int(view) for image in labelled.images for view in image.view[image.is_good]}


@pytest.mark.parametrize("name", ["autocryopicker", "supercryopicker"])
def test_clusters_mark_barrels_with_their_views_and_leave_the_ice_alone(name):
    picker = make_picker(name)
    seen = picker.survey(micrographs())
    right = views = marked = 0
    for truth in session():
        picks = picker.pick(truth.micrograph, seen)
        kept = picks.take(picks.score >= picker.default_threshold)
        distance = np.hypot(*(kept.xy_px[:, None] - truth.xy_px[None]).transpose(2, 0, 1))
        found = distance.min(axis=1) <= 12
        marked += len(kept)
        right += int(found.sum())
        views += int((kept.class_id[found] == truth.view[distance.argmin(axis=1)[found]]).sum())
    labels = sum(len(truth.xy_px) for truth in session())
    assert 2 * right / (marked + labels) >= 0.9
    assert views >= 0.9 * right


def test_faint_rings_in_a_crowd_are_found_beside_strong_ones(count_found):
    (crowd,) = draw_crowd(20, side_px=600, count=1, scale=0.45)
    picker = make_picker("autocryopicker", diameter=px(crowd.diameter_px), body=1.0)
    kept = picker.pick(crowd.micrograph)
    kept = kept.take(kept.score >= picker.default_threshold)
    right = count_found(kept.xy_px, crowd.xy_px, 0.25 * crowd.diameter_px)
    assert 2 * right / (len(kept) + len(crowd.xy_px)) >= 0.9


def test_blob_marks_rings_at_their_centres_and_not_on_their_walls(count_found):
    picker = BlobPicker(diameter=px(48))
    seen = picker.survey(micrographs())
    assert seen.radial_profile in ("disc", "shell", "thin-shell")
    (truth, _) = session()
    picks = picker.pick(truth.micrograph, seen)
    kept = picks.take(picks.score >= picker.default_threshold)
    rings = truth.xy_px[truth.view == TOP]
    assert count_found(kept.xy_px, rings, 12) >= 0.8 * len(rings)
