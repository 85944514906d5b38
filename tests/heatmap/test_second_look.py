from __future__ import annotations

import numpy as np

from cryopick.heatmap.second_look import LIKELY_SCORE, doubted, in_noise, stands_out, without_doubted_junk

INDEX = np.array([[20, 20]])


def maps(*, centre: float, junk: float) -> dict[str, np.ndarray]:
    full = np.ones((40, 40), np.float32)
    return {"noisy_centre": centre * full, "noisy_junk": junk * full}


def test_noise_is_the_same_at_every_call_and_as_strong_as_the_detail() -> None:
    image = np.random.default_rng(1).normal(5, 2, (200, 200)).astype(np.float32)
    added = in_noise(image, particle_px=20) - image
    assert np.array_equal(added, in_noise(image, particle_px=20) - image)
    assert abs(added.std() / 2 - 1) < 0.05


def test_noise_alone_does_not_stand_out_and_sharp_specks_do() -> None:
    noise = np.random.default_rng(1).standard_normal((200, 200)).astype(np.float32)
    specks = noise.copy()
    specks[::20, ::20] -= 20
    assert not stands_out(noise)
    assert stands_out(specks)
    assert not stands_out(np.zeros((8, 8), np.float32))


def test_only_likely_candidates_on_junk_are_doubted() -> None:
    junk = np.array([0.9, 0.9, 0.1], np.float32)
    score = np.array([LIKELY_SCORE, 0.1, 0.9], np.float32)
    assert doubted(junk, score).tolist() == [True, False, False]


def test_junk_is_taken_back_around_a_particle_that_stands_in_noise_and_nowhere_else() -> None:
    junk = np.full((40, 40), 0.5, np.float32)
    found = without_doubted_junk(junk, INDEX, **maps(centre=0.8, junk=0.1), particle_px=10)
    assert found[20, 20] == np.float32(0.1)
    assert found[20, 26] == np.float32(0.5)
    assert (found < 0.5).sum() < 30


def test_what_is_junk_or_no_particle_in_noise_stays_junk() -> None:
    junk = np.full((40, 40), 0.5, np.float32)
    for seen in (maps(centre=0.8, junk=0.6), maps(centre=0.1, junk=0.1)):
        assert np.array_equal(without_doubted_junk(junk, INDEX, **seen, particle_px=10), junk)
