"""Running a network over a whole image: what it is shown beyond the image."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cryopick.pickers.dense import DenseNetwork  # noqa: E402
from cryopick.pickers.looks import seen_turned  # noqa: E402


class Recorder(torch.nn.Module):
    """Answers with what it is shown, and remembers it."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        self.shown.append(x[0].numpy().copy())
        return x


@pytest.mark.parametrize("step_yx", [(1, 1), (-1, -1), (1, -1)])
def test_beyond_the_image_the_network_sees_its_mirror_image_and_no_border(step_yx):
    planes = np.random.default_rng(0).normal(size=(2, 21, 30)).astype(np.float32)
    recorder = Recorder()
    dense = DenseNetwork.loaded(
        recorder, device="cpu", precision="float32", channels=2, stride_px=1, multiple_px=16, halo_px=16
    )
    assert np.array_equal(seen_turned(dense, planes, step_yx), planes)
    (shown,) = recorder.shown
    straight = shown[:, :: step_yx[0], :: step_yx[1]]
    assert straight.shape == (2, 32, 32)
    assert np.array_equal(straight[:, :21, :30], planes)
    assert np.array_equal(straight[:, 21:, :30], planes[:, :9:-1])
    assert np.array_equal(straight[:, :21, 30:], planes[:, :, :27:-1])
