"""Fig. 3 and Table S3: what tells particles from background in latent space."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cryopick.errors import InputError
from cryopick.pickers.cryoemmae.latent import LatentMap
from cryopick.pickers.cryoemmae.latent_space import (
    LatentSample,
    mean_distances,
    principal_components,
    sample_latent_space,
    scatter_png,
)
from cryopick.types import Micrograph


def sample_of(rng, *, apart, name="m"):
    """Two clouds in five dimensions, their middles `apart` standard deviations from each other."""
    particles, background = rng.normal(size=(2, 400, 5)).astype(np.float32)
    particles[:, 3] += apart
    return LatentSample(name, particles, background)


def test_separation_is_chance_for_equal_clouds_and_one_for_clouds_apart():
    rng = np.random.default_rng(0)
    assert sample_of(rng, apart=0).separation == pytest.approx(0.5, abs=0.06)
    assert sample_of(rng, apart=12).separation == 1.0
    # two normal distributions one deviation apart: the normal integral of 1 / sqrt 2
    assert sample_of(rng, apart=1).separation == pytest.approx(0.76, abs=0.05)


def test_separation_counts_equal_vectors_half():
    same = np.ones((20, 3), np.float32)
    assert LatentSample("m", same, same).separation == 0.5


def test_mean_distances_are_those_of_all_pairs_but_of_a_vector_with_itself():
    rng = np.random.default_rng(1)
    first, second = (LatentSample(name, *rng.normal(size=(2, 4, 3)).astype(np.float32)) for name in ("a", "b"))
    found = mean_distances(first, second)
    pairs = [np.linalg.norm(first.particles[i] - first.particles[j]) for i in range(4) for j in range(4) if i != j]
    assert found[0, 0] == pytest.approx(np.mean(pairs), rel=1e-5)
    across = [np.linalg.norm(a - b) for a in first.background for b in second.particles]
    assert found[1, 2] == pytest.approx(np.mean(across), rel=1e-5)
    assert found == pytest.approx(found.T)


def test_particles_lie_to_the_right_along_the_component_that_tells_them_apart():
    particles, background = principal_components(sample_of(np.random.default_rng(2), apart=9))
    assert particles[:, 0].min() > background[:, 0].max()
    assert np.concatenate([particles, background]).mean(axis=0) == pytest.approx([0, 0], abs=1e-4)


def test_the_picture_has_a_panel_for_each_micrograph():
    rng = np.random.default_rng(3)
    samples = [sample_of(rng, apart=3, name=f"m{i}") for i in range(4)]
    sizes = [Image.open(BytesIO(scatter_png(samples[:count]))).size for count in (1, 3, 4)]
    assert sizes[1][0] == pytest.approx(3 * sizes[0][0], rel=0.02)
    assert sizes[2][1] == pytest.approx(2 * sizes[1][1], rel=0.02)


class MapOfPlaces:
    """Stands in for the encoder: a vector tells where it is."""

    def dense(self, image):
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        return LatentMap(np.stack([x, y], axis=-1), 2.0, 1.5)


def test_vectors_are_taken_on_the_labels_and_away_from_them():
    pixels = np.random.default_rng(0).normal(size=(200, 240)).astype(np.float32)
    model = SimpleNamespace(preprocessing="corrected", encoder=MapOfPlaces())
    labels = np.array([[60.0, 70.0], [150.0, 120.0]])
    found = sample_latent_space(model, Micrograph(pixels, name="m"), labels, diameter_px=40, count=30)
    assert len(found.particles) == len(found.background) == 30
    # the working size is half of the stored one, and cells are two pixels of it
    places = [(one * 2 + 1.5 + 0.5) * 2 - 0.5 for one in (found.particles, found.background)]
    gaps = [np.hypot(*(one[:, None] - labels).transpose(2, 0, 1)).min(axis=1) for one in places]
    assert gaps[0].max() < 0.7 * 20 + 0.1
    assert gaps[1].min() > 1.5 * 20 - 0.1


def test_a_micrograph_without_labels_has_nothing_to_tell_apart():
    model = SimpleNamespace(preprocessing="corrected", encoder=MapOfPlaces())
    pixels = np.random.default_rng(0).normal(size=(200, 240)).astype(np.float32)
    with pytest.raises(InputError, match="0 cells lie on particles"):
        sample_latent_space(model, Micrograph(pixels, name="m"), np.zeros((0, 2)), diameter_px=40)
