"""Optional packages: what is said of a missing one works on this machine and is in the project's own list."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import cryopick
from cryopick.errors import MissingExtraError
from cryopick.extras import EXTRAS, install_hint, require_extra
from cryopick.inference.device import cuda_devices
from cryopick.pickers.registry import picker_class


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = project["optional-dependencies"]

    def resolved(name: str) -> set[str]:
        own = {need for need in declared[name] if not need.startswith("cryopick[")}
        others = [need[len("cryopick[") : -1].split(",") for need in declared[name] if need.startswith("cryopick[")]
        return own.union(*(resolved(other) for names in others for other in names))

    together = ("all", "dev")
    assert {name: resolved(name) for name in declared if name not in together} == {
        name: set(needs) for name, needs in EXTRAS.items()
    }
    assert resolved("all") == {need for needs in EXTRAS.values() for need in needs}
    base = {need.partition(">=")[0] for need in project["dependencies"]}
    assert base.isdisjoint({need.partition(">=")[0] for needs in EXTRAS.values() for need in needs})


def test_a_missing_package_is_named_with_a_command_for_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setattr(sys, "prefix", "/opt/elsewhere")  # not the environment of a checkout
    with pytest.raises(MissingExtraError) as caught:
        require_extra("train", ("json", "lightning"), "training")
    assert str(caught.value).startswith("training needs lightning and tensorboard, with PyTorch; install with: ")
    assert f"{sys.executable} -m pip install" in str(caught.value).replace("'", "")
    assert str(caught.value).endswith("(not found: lightning)")
    assert "cryopick[" not in install_hint("train")  # no index has cryopick


def test_in_a_checkout_with_its_own_environment_the_script_that_made_it_installs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    assert install_hint("plots") == f"{root}/scripts/environment plots"
    assert (root / "scripts" / "environment").stat().st_mode & 0o100


@pytest.mark.parametrize("has_card", [True, False])
def test_without_a_card_of_nvidia_torch_comes_without_cuda(monkeypatch: pytest.MonkeyPatch, has_card: bool) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/elsewhere")
    monkeypatch.setattr("cryopick.extras._has_nvidia_card", lambda: has_card)
    assert ("https://download.pytorch.org/whl/cpu" in install_hint("torch")) is not has_card
    assert "pytorch.org" not in install_hint("plots")


RESEARCH = ("cryosegnet", "cryotransformer", "cryoemmae", "deepcryopicker", "segmentation-crf", "consensus")


@pytest.mark.parametrize("picker", [*RESEARCH, "supercryopicker"])
def test_a_picker_without_its_library_is_refused_before_anything_is_read(
    picker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryopick.extras.is_installed", lambda module: module not in ("torch", "skimage"))
    with pytest.raises(MissingExtraError, match=f"picker {picker} needs .*install with"):
        cryopick.pick("no-such-folder", picker, output=tmp_path / "run")
    with pytest.raises(MissingExtraError, match=f"picker {picker} needs .*install with"):
        cryopick.pick(np.zeros((64, 64), np.float32), picker, diameter="20px")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("picker", ["general", "blob", "template"])
def test_the_other_pickers_ask_for_no_extra(picker: str) -> None:
    assert not getattr(picker_class(picker), "needs_extra", "")


def test_a_graphics_card_without_torch_is_told_how_to_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryopick.inference.device.is_installed", lambda module: False)
    monkeypatch.setattr("cryopick.inference.device._may_have_card", lambda: True)
    count, reason, complaint = cuda_devices()
    assert (count, reason) == (0, "torch, which uses them, is not installed")
    assert "needs PyTorch and what goes with it; install with: " in complaint


def test_a_module_that_was_not_looked_for_is_named_with_its_command_too(tmp_path: Path) -> None:
    """Whatever a command imports in its middle: here matplotlib, which only `reproduce` draws with."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from cryopick.cli import convert, main\n"
        "def command(folder: str) -> None:\n    import matplotlib.figure\n"
        "convert.command = command\n"
        "sys.argv = ['cryopick', 'convert', 'x']\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "convert needs matplotlib; install with: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode not in (0, 70)


def test_packages_that_are_there_raise_nothing() -> None:
    require_extra("train", ("json", "email.mime"), "training")
