"""`cryopick doctor`: is this installation sound, and what can it use."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from cryopick import __version__
from cryopick.errors import CryopickError

REQUIRED_MODULES = ("numpy", "scipy", "mrcfile", "tifffile", "cv2", "skimage", "matplotlib", "torch")
OPTIONAL_MODULES = {
    "lightning": 'training: pip install "cryopick[train]"',
    "transformers": 'the Segment Anything pickers: pip install "cryopick[sam]"',
    "cryosparc": 'live exchange with cryoSPARC: pip install "cryopick[cryosparc]"',
    "onnxruntime": 'faster picking on CPUs: pip install "cryopick[onnx]"',
}
LITTLE_SPACE_BYTES = 1_000_000_000


def command(
    folder: Annotated[Path, typer.Argument(help="Folder in which runs will be written.")] = Path(),
) -> None:
    """Check this installation: packages, accelerator, other programs, and whether picking works here.

    cryopick doctor
    """
    typer.echo(f"cryopick {__version__}, Python {platform.python_version()}, {platform.platform()}")
    typer.echo(f"{_cores()} cores usable")
    checks = [_modules, _accelerator, _pickers, lambda: _writable(folder), _picks_a_sample]
    failures = sum(not _report(check) for check in checks)
    _optional()
    if failures:
        typer.echo(f"{failures} check(s) failed", err=True)
        raise typer.Exit(1)
    typer.echo("all well")


def _report(check: Callable[[], str]) -> bool:
    """Print what a check found; a broken package may raise anything, and the doctor is there to say so."""
    try:
        typer.echo(f"ok      {check()}")
    except Exception as error:
        typer.echo(f"FAILED  {type(error).__name__}: {error}", err=True)
        return False
    return True


def _cores() -> int:
    from cryopick.workflows.processes import usable_cores

    return usable_cores()


def _modules() -> str:
    versions = [f"{name} {getattr(import_module(name), '__version__', '')}".strip() for name in REQUIRED_MODULES]
    return ", ".join(versions)


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        probe = torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")
        if float(probe[0, 0]) != 64.0:
            raise RuntimeError("the graphics card computes wrong products; check its driver")
        return f"graphics card: {', '.join(names)}"
    return "no graphics card; learned pickers run on the CPU"


def _pickers() -> str:
    from cryopick.pickers.registry import list_pickers

    return f"pickers: {', '.join(list_pickers())}"


def _writable(folder: Path) -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".cryopick-doctor-"):
            free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise CryopickError(
            f"{folder.absolute()}: cannot be written ({error.strerror}); give a folder you may write"
        ) from error
    if free_bytes < LITTLE_SPACE_BYTES:
        raise CryopickError(f"{folder.absolute()}: only {free_bytes / 1e6:.0f} MB free; a run needs about 1 GB")
    return f"{folder.absolute()} can be written, {free_bytes / 1e9:.0f} GB free"


def _picks_a_sample() -> str:
    import numpy as np

    from cryopick.workflows.demo import DIAMETER_ANGSTROM, make_sample
    from cryopick.workflows.pick import pick

    ((micrograph, truth),) = make_sample(1)
    start = time.perf_counter()
    kept = pick(micrograph, "blob", diameter=f"{DIAMETER_ANGSTROM:g}A").kept()
    seconds = time.perf_counter() - start
    apart_px = np.hypot(*(truth.xy_px[:, None] - kept.xy_px[None]).transpose(2, 0, 1))  # (n true, n picked)
    found = int((apart_px.min(axis=1, initial=np.inf) < truth.diameter_px / 4).sum())
    if found < 0.8 * len(truth):
        raise CryopickError(
            f"picker blob found {found} of {len(truth)} particles of a simple sample, expected nearly all"
        )
    return f"picked a sample: {found} of {len(truth)} particles in {seconds:.1f} s"


def _optional() -> None:
    for name, purpose in OPTIONAL_MODULES.items():
        try:
            import_module(name)
        except ImportError:
            typer.echo(f"absent  {name}, for {purpose}")
    relion = shutil.which("relion_preprocess") or shutil.which("relion_autopick")
    typer.echo(f"RELION: {os.path.dirname(relion) if relion else 'not on the PATH; only comparisons need it'}")
