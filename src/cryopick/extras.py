"""Optional dependencies: which packages an extra stands for, and what a user without them is told.

The packages are named one by one, for the interpreter that runs: that works however cryopick was installed (a
checkout, a wheel, a folder on the path), while the name `cryopick[train]` works only where an index has cryopick. In a
checkout with its own environment, `scripts/environment EXTRA` does the same.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cryopick.errors import MissingExtraError

_TORCH = (
    *("torch>=2.6", "torchvision>=0.21"),
    *("scikit-image>=0.23", "scikit-learn>=1.4", "pillow>=10", "threadpoolctl>=3.1"),
)
_PLOTS = ("matplotlib>=3.8",)
EXTRAS: dict[str, tuple[str, ...]] = {
    "torch": _TORCH,
    "train": (*_TORCH, *_PLOTS, "lightning>=2.3", "tensorboard>=2.16"),
    "sam": (*_TORCH, "transformers>=4.44"),
    "ctf": (*_TORCH, "torch-ctf-estimation>=0.6"),
    "plots": _PLOTS,
    "tiff": ("imagecodecs>=2024.1",),
    "masks": ("scikit-image>=0.23",),
    "cryosparc": ("cryosparc-tools>=4.5",),
    "notebook": ("pandas>=2",),
    "cluster": ("distributed>=2026.1", "dask-jobqueue>=0.9", "cryptography>=42"),
}
"""Requirements by extra, as in `pyproject.toml`, with those of the extras that it includes."""
_NAMED: dict[str, str] = {
    "torch": "PyTorch and what goes with it",
    "train": "lightning and tensorboard, with PyTorch",
    "sam": "transformers, with PyTorch",
    "ctf": "torch-ctf-estimation, with PyTorch",
}
"""What an extra is called where a list of its packages would be long."""
_MODULES: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "torchvision", "skimage", "sklearn", "PIL", "threadpoolctl"),
    "train": ("lightning", "tensorboard"),
    "sam": ("transformers",),
    "ctf": ("torch_ctf_estimation",),
    "plots": ("matplotlib",),
    "tiff": ("imagecodecs",),
    "masks": ("skimage",),
    "cryosparc": ("cryosparc",),
    "notebook": ("pandas",),
    "cluster": ("distributed", "dask", "dask_jobqueue", "cryptography"),
}
"""What is imported of an extra."""
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""PyTorch without the 4 GB that only NVIDIA's cards need."""


def install_hint(extra: str) -> str:
    """The command that installs an extra for this very interpreter, ready to paste.

    In a checkout whose environment `scripts/environment` made, that script; else pip, for the packages one by one.
    """
    script = _checkout_script()
    if script is not None:
        return shlex.join([str(script), extra])
    wheels = ["--extra-index-url", CPU_WHEELS] if "torch>=2.6" in EXTRAS[extra] and not _has_nvidia_card() else []
    return shlex.join([sys.executable or "python3", "-m", "pip", "install", *wheels, *EXTRAS[extra]])


def _checkout_script() -> Path | None:
    root = Path(__file__).parents[2]
    script = root / "scripts" / "environment"
    return script if script.is_file() and Path(sys.prefix) == root / ".venv" else None


def _has_nvidia_card() -> bool:
    return not sys.platform.startswith("linux") or Path("/dev/nvidiactl").exists()


def missing_extra(extra: str, what: str) -> str:
    """One sentence: `what` needs the packages of `extra`, and the command that installs them here."""
    packages = _NAMED.get(extra) or " and ".join(requirement.partition(">=")[0] for requirement in EXTRAS[extra])
    return f"{what} needs {packages}; install with: {install_hint(extra)}"


def extra_of(module: str) -> str | None:
    """The extra that a module, as imported, comes with; None where it is no optional one."""
    top = module.partition(".")[0]
    return next((extra for extra in reversed(_MODULES) if top in _MODULES[extra]), None)


def modules_of(extra: str) -> tuple[str, ...]:
    """What is imported of an extra's packages."""
    return _MODULES[extra]


def require_extra(extra: str, modules: Sequence[str], what: str) -> None:
    """Raise before the first costly step if a module of an extra is not installed.

    Parameters
    ----------
    modules : as imported, such as `lightning`; they are looked for, not imported
    what : begins the sentence, such as "training"

    Raises
    ------
    MissingExtraError
        If one of the modules cannot be found.
    """
    absent = [module for module in modules if not is_installed(module)]
    if absent:
        raise MissingExtraError(f"{missing_extra(extra, what)} (not found: {', '.join(absent)})")


def is_installed(module: str) -> bool:
    """Whether a module can be found; it is not imported, which may take seconds."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing, or a module of that name has no specification
        return False
