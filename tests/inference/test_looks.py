"""Several looks at one micrograph: the mean of their answers, each read at the right place."""

import numpy as np
import pytest

from cryopick.inference.looks import LOOKS, Look, mean_of_looks, seen_turned


class Smear:
    """In place of a network: every block of 2 x 2 pixels answers with the mean of itself and of the one before."""

    stride_px, multiple_px = 2, 8

    def __call__(self, planes):
        height, width = planes.shape[1:]
        padded = np.pad(planes, ((0, 0), (0, -height % 2), (0, -width % 2)))
        blocks = padded.reshape(len(planes), padded.shape[1] // 2, 2, padded.shape[2] // 2, 2).mean(axis=(2, 4))
        return (blocks + np.pad(blocks, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]) / 2


def test_turned_columns_smear_the_other_way_and_end_where_they_were():
    planes = np.zeros((1, 10, 14), np.float32)
    planes[0, 4:6, 6:8] = 1
    for step_yx, columns in (((1, 1), (3, 4)), ((-1, 1), (3, 4)), ((1, -1), (2, 3)), ((-1, -1), (2, 3))):
        maps = seen_turned(Smear(), planes, step_yx)
        assert maps.shape == (1, 5, 7)
        assert sorted(map(tuple, np.argwhere(maps[0] > 0))) == [(2, column) for column in columns]


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_plane_ramp_is_read_at_the_same_place_by_every_look(factor):
    y, x = np.mgrid[:300, :420].astype(np.float32)
    alone, scale = mean_of_looks(
        x + 2 * y, lambda working, look: working[None], diameter_px=40, nominal_px=20, looks=(Look(),)
    )
    joined, _ = mean_of_looks(
        x + 2 * y,
        lambda working, look: working[None],
        diameter_px=40,
        nominal_px=20,
        looks=(Look(), Look(factor=factor)),
    )
    assert scale.factor == pytest.approx(0.5)
    inside = np.s_[:, 4:-4, 4:-4]  # at the border the nearest value is repeated
    assert np.abs(joined - alone)[inside].max() < 0.1


def test_the_answer_is_the_mean_of_what_each_look_says():
    said = {look: float(number) for number, look in enumerate(LOOKS, start=1)}
    maps, _ = mean_of_looks(
        np.zeros((90, 120), np.float32),
        lambda working, look: np.full((2, *working.shape), said[look], np.float32),
        diameter_px=20,
        nominal_px=20,
    )
    assert maps.shape == (2, 90, 120)
    assert np.allclose(maps, np.mean(list(said.values())))
