"""Automatic mask generation, with a segmenter that draws discs where it is asked."""

import numpy as np
import pytest

from cryopick.errors import SettingsError
from cryopick.pickers.cryosegnet.mask_generation import (
    DUPLICATE,
    EMPTY,
    LOW_IOU,
    UNSTABLE,
    GeneratorSettings,
    Masks,
    box_suppression,
    generate_masks,
    point_grid,
)
from cryopick.processing.regions import without_small_regions


class DiscSegmenter:
    """Answers every prompt with the disc that it lies in, whose value is the predicted IoU in percent."""

    def __init__(self, side=64, slope=10.0):
        self.side, self.slope = side, slope
        self.embedded = []

    @property
    def image_px(self):
        return self.side

    def embed(self, tiles):
        self.embedded.append(len(tiles))
        return tiles

    def decode(self, embeddings, tile, xy_px):
        logits = np.full((len(tile), 1, self.side, self.side), -self.slope, np.float32)
        predicted = np.zeros((len(tile), 1), np.float32)
        for i, (number, (x, y)) in enumerate(zip(tile, xy_px, strict=True)):
            value = embeddings[number][round(y), round(x)]
            if value > 0:
                logits[i, 0][embeddings[number] == value] = self.slope
                predicted[i, 0] = value / 100
        return logits, predicted


def picture_with_discs(shape_yx, centres, radius=6):
    """Disc `i` has the value 90 + i."""
    y, x = np.mgrid[: shape_yx[0], : shape_yx[1]]
    picture = np.zeros(shape_yx, np.float32)
    for i, (cx, cy) in enumerate(centres):
        picture[np.hypot(x - cx, y - cy) <= radius] = 90 + i
    return picture


def test_the_published_grid_counts_from_the_corner_where_the_model_counts_from_the_first_pixel():
    grid = point_grid((1024, 1024))
    assert len(grid) == 1024
    assert grid[0].tolist() == [16, 16]
    assert (grid[1] - grid[0]).tolist() == [32, 0]
    assert grid[-1].tolist() == [1008, 1008]
    with pytest.raises(SettingsError, match="points_per_side"):
        point_grid((10, 10), points_per_side=0)


def test_every_prompt_on_a_particle_gives_its_mask_in_the_frame_of_the_picture():
    centres = [(20, 30), (100, 40), (150, 150), (63, 64), (5, 155)]
    picture = picture_with_discs((160, 170), centres)
    masks = generate_masks(DiscSegmenter(), picture, np.array(centres, np.float64)).kept()
    assert len(masks) == len(centres)
    for (cx, cy), centroid, area in zip(centres[::-1], masks.centroid_xy_px, masks.area_px, strict=True):
        if cx > 6 and cy < 153:  # whole discs
            assert centroid.tolist() == [cx, cy]
            assert area == np.count_nonzero(picture == picture[cy, cx])
    whole = np.zeros_like(picture)
    for (left, top, right, bottom), patch in zip(masks.box_xyxy_px, masks.patches, strict=True):
        assert patch.shape == (bottom - top + 1, right - left + 1)
        whole[top : bottom + 1, left : right + 1] += patch
    np.testing.assert_array_equal(whole > 0, picture > 0)


def test_masks_come_by_descending_predicted_iou_and_say_why_they_are_dropped():
    picture = picture_with_discs((64, 64), [(12, 12), (40, 40)])
    prompts = np.array([[12.0, 12], [40, 40], [13, 13], [60, 5]])  # two on one disc, one on nothing
    masks = generate_masks(DiscSegmenter(), picture, prompts, GeneratorSettings(predicted_iou=0.9))
    assert np.all(np.diff(masks.predicted_iou) <= 0)
    reasons = {tuple(prompt): reason for prompt, reason in zip(masks.prompt_xy_px, masks.reason, strict=True)}
    assert reasons[(60.0, 5.0)] == EMPTY
    assert reasons[(40.0, 40.0)] == ""
    # 0.9 is not above 0.9
    assert {reasons[(12.0, 12.0)], reasons[(13.0, 13.0)]} == {LOW_IOU}
    masks = generate_masks(DiscSegmenter(), picture, prompts[:3], GeneratorSettings(predicted_iou=0.5))
    assert sorted(masks.reason) == sorted(["", "", DUPLICATE])


def test_stability_is_the_overlap_of_the_masks_at_shifted_thresholds():
    class Slope(DiscSegmenter):
        def decode(self, embeddings, tile, xy_px):
            ramp = np.linspace(-4, 4, self.side, dtype=np.float32)[None, :].repeat(self.side, 0)
            return ramp[None, None].repeat(len(tile), 0), np.ones((len(tile), 1), np.float32)

    masks = generate_masks(Slope(side=65), np.ones((65, 65), np.float32), np.array([[40.0, 40.0]]))
    ramp = np.linspace(-4, 4, 65)
    assert masks.stability[0] == pytest.approx((ramp > 1).sum() / (ramp > -1).sum())
    assert masks.reason.tolist() == [UNSTABLE]


def test_each_tile_is_embedded_once_and_only_where_it_is_asked():
    segmenter = DiscSegmenter()
    picture = picture_with_discs((200, 200), [(20, 20)])
    prompts = np.full((300, 2), 20.0)
    generate_masks(segmenter, picture, prompts, GeneratorSettings(prompts_per_batch=64))
    assert segmenter.embedded == [1]


def test_a_prompt_sees_at_least_the_overlap_around_it():
    segmenter = DiscSegmenter(side=64)
    seen = []
    segmenter.decode = lambda embeddings, tile, xy: (
        seen.append(xy.copy()) or (np.zeros((len(tile), 1, 64, 64), np.float32), np.zeros((len(tile), 1), np.float32))
    )
    rng = np.random.default_rng(0)
    prompts = rng.uniform(20, 279, (200, 2))  # 20 px from the border of the picture
    generate_masks(segmenter, np.zeros((300, 300), np.float32), prompts, GeneratorSettings(tile_overlap=0.25))
    places = np.concatenate(seen)
    assert places.min() >= 0.25 * 64 - 1
    assert places.max() <= 0.75 * 64


def test_without_prompts_there_are_no_masks():
    masks = generate_masks(DiscSegmenter(), np.zeros((50, 50), np.float32), np.zeros((0, 2)))
    assert len(masks) == 0
    assert masks.draw((50, 50)).max() == 0
    assert len(Masks.none().kept()) == 0


def test_holes_and_islands_go_but_the_largest_island_stays():
    mask = np.zeros((12, 12), bool)
    mask[1:8, 1:8] = True
    mask[3, 3] = False  # a hole of one pixel
    mask[10, 10] = True  # an island of one
    cleaned = without_small_regions(mask, smallest_px=3)
    assert cleaned[3, 3]
    assert not cleaned[10, 10]
    assert cleaned.sum() == 49
    speck = np.zeros((5, 5), bool)
    speck[2, 2] = True
    assert without_small_regions(speck, smallest_px=100).sum() == 1


def test_box_suppression_equals_the_greedy_definition():
    rng = np.random.default_rng(3)
    for _ in range(20):
        low = rng.integers(0, 30, (25, 2))
        boxes = np.concatenate([low, low + rng.integers(0, 15, (25, 2))], axis=1)
        score = rng.random(25).round(1)  # with ties
        kept: list[int] = []
        for i in np.argsort(-score, kind="stable"):
            overlaps = []
            for j in kept:
                w = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0]) + 1
                h = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1]) + 1
                both = max(w, 0) * max(h, 0)
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (boxes[i], boxes[j])]
                overlaps.append(both / (sum(areas) - both))
            if not any(overlap > 0.3 for overlap in overlaps):
                kept.append(int(i))
        assert np.flatnonzero(box_suppression(boxes, score, limit=0.3)).tolist() == sorted(kept)


def test_impossible_settings_are_refused():
    for wrong in ({"stability": 1.5}, {"prompts_per_batch": 0}, {"tile_overlap": 0.5}):
        with pytest.raises(SettingsError):
            GeneratorSettings(**wrong)
