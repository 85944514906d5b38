"""Running a network over a whole image: what it is shown beyond the image."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cryopick.errors import SettingsError  # noqa: E402
from cryopick.inference import device as device_module  # noqa: E402
from cryopick.inference.dense import DenseNetwork  # noqa: E402
from cryopick.inference.device import chosen_device  # noqa: E402
from cryopick.inference.looks import seen_turned  # noqa: E402
from cryopick.pickers.registry import list_pickers, picker_class  # noqa: E402
from cryopick.workflows.pick import pick  # noqa: E402
from cryopick.workflows.train import plan_training  # noqa: E402


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


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("nonsense", "expected auto, cpu, cuda"),
        ("cuda:x", "expected auto, cpu, cuda"),
        ("cuda:", "expected auto, cpu, cuda"),
        ("", "expected auto, cpu, cuda"),
        ("meta", "expected auto, cpu, cuda"),
        ("cuda", "no usable CUDA graphics card here"),
        ("cuda:7", "no usable CUDA graphics card here"),
        ("mps", "no Apple graphics"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence_before_anything_is_read(
    device: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for name in list_pickers():
        if "device" in {field.name for field in fields(picker_class(name))}:
            with pytest.raises(SettingsError, match=words):
                pick(["no-such-folder"], name, output=tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingsError, match=words):
        chosen_device(device)


def test_training_on_a_device_that_is_not_there_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for accelerator, words in (("gpu", "no usable CUDA"), ("mps", "no Apple")):
        with pytest.raises(SettingsError, match=words):
            plan_training("general", training={"accelerator": accelerator})
    plan_training("general", training={"accelerator": "cpu"})


def test_a_card_that_is_there_but_cannot_compute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device_module, "cuda_devices", lambda: (2, "", ""))
    monkeypatch.setattr(device_module, "_why_unusable", lambda device: "CUDA error: no kernel image is available")
    device_module._automatic_device.cache_clear()
    with pytest.raises(SettingsError, match=r"is there but cannot be used .*no kernel image"):
        chosen_device("cuda:1")
    with pytest.raises(SettingsError, match="cuda:0 to cuda:1 are there"):
        chosen_device("cuda:2")
    assert chosen_device("auto") == "cpu"
    assert "no kernel image" in caplog.text  # slower than expected, so it is said
    device_module._automatic_device.cache_clear()
