"""Optional dependencies: which packages an extra stands for, and what a user without them is told.

The packages are named one by one, for the interpreter that runs: that works however cryopick was installed (a
checkout, a wheel, a folder on the path), while the name `cryopick[train]` works only where an index has cryopick.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from cryopick.errors import MissingExtraError

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning>=2.3", "tensorboard>=2.16"),
    "sam": ("transformers>=4.44",),
    "cryosparc": ("cryosparc-tools>=4.5",),
    "notebook": ("pandas>=2",),
    "cluster": ("distributed>=2026.1", "dask-jobqueue>=0.9", "cryptography>=42"),
}
"""Requirements by extra, as in `pyproject.toml`."""


def install_hint(extra: str) -> str:
    """The command that installs an extra for this very interpreter, ready to paste."""
    return shlex.join([sys.executable or "python3", "-m", "pip", "install", *EXTRAS[extra]])


def missing_extra(extra: str, what: str) -> str:
    """One sentence: `what` needs the packages of `extra`, and the command that installs them here."""
    packages = " and ".join(requirement.partition(">=")[0] for requirement in EXTRAS[extra])
    return f"{what} needs {packages}; install with: {install_hint(extra)}"


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
