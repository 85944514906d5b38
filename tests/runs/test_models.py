"""A run loads each network once, whatever the number of micrographs, and lets it go when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest
from discs import DIAMETER_PX, disc_micrograph

import cryopick
from cryopick.errors import SettingsError
from cryopick.io import weights
from cryopick.pickers.registry import make_picker
from cryopick.runs.settings import make_settings
from cryopick.workflows.pick import pick_to_folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pickers whose weights were read, in order."""
    read, names = weights.load_checkpoint, []

    def counted(path: Path, **expected: str) -> weights.Checkpoint:
        names.append(expected["picker"])
        return read(path, **expected)

    monkeypatch.setattr(weights, "load_checkpoint", counted)
    return names


@pytest.mark.parametrize("name", ["general", "cryotransformer", "cryoemmae", "segmentation-crf"])
def test_a_run_reads_each_network_once_and_holds_none_afterwards(
    folder_of_discs: Path, tmp_path: Path, loads: list[str], name: str
) -> None:
    settings = make_settings(name, device="cpu", diameter=f"{DIAMETER_PX}px")
    summary = pick_to_folder([folder_of_discs], tmp_path / "run", settings, workers=1)
    assert summary.micrographs == 3
    assert name in loads
    assert len(loads) == len(set(loads))
    assert len(settings.picker._models) == 0


def test_a_picker_of_ones_own_keeps_its_network_from_image_to_image(loads: list[str]) -> None:
    picker = make_picker("general", diameter=cryopick.parse_length(f"{DIAMETER_PX}px"))
    for seed in range(3):
        cryopick.pick(disc_micrograph(f"m{seed}", seed=seed), picker)
    assert loads == ["general"]


def test_settings_do_not_show_what_a_picker_holds() -> None:
    with pytest.raises(SettingsError, match="has no setting _models; it has: device, diameter"):
        make_picker("general", _models=None)
    assert "_models" not in repr(make_picker("general"))
