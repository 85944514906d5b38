"""Several graphics cards of one machine: each worker process sees one; tested where there is none."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

import pytest
from discs import disc_micrograph
from lame_picker import CardPicker

from cryopick.errors import SettingsError
from cryopick.inference import device as device_module
from cryopick.inference.computing import Computing
from cryopick.inference.device import separate_environments
from cryopick.io.images.micrographs import write_micrograph
from cryopick.runs import workers as workers_module
from cryopick.runs.one import PickWorker
from cryopick.runs.settings import PickPlan, make_settings
from cryopick.runs.workers import Workforce
from cryopick.scale.process_pool import Processes
from cryopick.workflows.pick import pick


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "cuda_devices", lambda: (2, "", ""))
    monkeypatch.setattr(workers_module, "current_device", lambda _: nullcontext())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for seed in range(8):
        write_micrograph(tmp_path / "in" / f"m{seed}.mrc", disc_micrograph("m", seed=seed))
    return tmp_path / "in"


@pytest.mark.usefixtures("two_cards")
def test_each_worker_sees_one_of_the_cards_in_turn(micrographs: Path, tmp_path: Path) -> None:
    summary = pick(micrographs, CardPicker(), output=tmp_path / "run", devices="cuda:1,cuda:0", workers=2)
    assert set(summary.warnings) == {"sees 0", "sees 1"}
    assert summary.particles == 8
    assert "cuda:" not in (tmp_path / "run" / "config.toml").read_text()  # no setting: another call may use others


@pytest.mark.usefixtures("two_cards")
def test_two_workers_share_a_card_and_one_worker_is_a_process_that_sees_its_card_alone(
    micrographs: Path, tmp_path: Path
) -> None:
    plan = PickPlan(settings=make_settings(CardPicker()))
    executor = Workforce(devices=("cuda:0", "cuda:1")).open(plan, tasks=1)
    assert isinstance(executor, Processes)
    assert executor.workers == 4
    executor.close()
    summary = pick(micrographs / "m0.mrc", CardPicker(), output=tmp_path / "run", devices="cuda:1", workers=1)
    assert set(summary.warnings) == {"sees 1"}


@pytest.mark.usefixtures("two_cards")
def test_a_card_that_no_worker_gets_is_named(caplog: pytest.LogCaptureFixture) -> None:
    plan = PickPlan(settings=make_settings(CardPicker()))
    with caplog.at_level(logging.WARNING):
        Workforce(devices=("cuda:0", "cuda:1"), workers=1).open(plan, tasks=9).close()
    assert "1 worker for 2 devices, so that cuda:1 computes nothing; -j 2 or more uses all" in caplog.text


@pytest.mark.parametrize(
    ("count", "devices", "words"),
    [
        (2, "cuda:0,cuda:2,cuda:7", "no cuda:2, cuda:7 here; there are cuda:0, cuda:1"),
        (1, "cuda:1", "no cuda:1 here; there is cuda:0 alone"),
        (0, "cuda:0", r"no cuda:0: no usable CUDA graphics card here \(no driver\)"),
        (2, "cuda:0,cuda:0", "cuda:0 is named twice"),
        (2, "cuda", "'cuda': expected names such as cuda:0,cuda:1"),
        (2, "cpu", "'cpu': expected names"),
        (2, "0,1", "'0': expected names"),
    ],
)
def test_a_card_that_is_not_there_is_an_error_at_once_that_says_what_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, devices: str, words: str
) -> None:
    monkeypatch.setattr(device_module, "cuda_devices", lambda: (count, "no driver", ""))
    with pytest.raises(SettingsError, match=words):
        pick(["no-such-folder"], CardPicker(), output=tmp_path / "run", devices=devices)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("two_cards")
def test_cards_for_a_picker_without_or_with_another_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="picker blob computes on the CPU alone"):
        pick(["in"], "blob", diameter="20px", output=tmp_path / "run", devices="cuda:0")
    with pytest.raises(SettingsError, match="devices cuda:0 and device cpu: leave one of them out"):
        pick(["in"], "general", device="cpu", output=tmp_path / "run", devices="cuda:0")


def test_cards_count_as_this_process_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "cuda_devices", lambda: (2, "", ""))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-3c1f")  # as a batch system sets it
    given = [one["CUDA_VISIBLE_DEVICES"] for one in separate_environments(["cuda:1", "cuda:0"])]
    assert given == ["GPU-3c1f", "5"]


def test_a_worker_whose_card_cannot_compute_does_not_begin() -> None:
    settings = make_settings("general")
    with pytest.raises(SettingsError, match="cannot compute on cuda"):
        PickWorker(PickPlan(settings=settings, computing=Computing(device="cuda", precision="bfloat16")))
