"""`cryopick doctor`: is this installation sound, and what can it use."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from cryopick.errors import CryopickError, InputError
from cryopick.evaluation.relion_programs import find_relion
from cryopick.evaluation.relion_programs.installation import WHOLE_PATH
from cryopick.extras import install_hint
from cryopick.version import __version__

REQUIRED_MODULES = ("numpy", "scipy", "tifffile", "cv2", "openvino")
OPTIONAL_MODULES = {
    "torch": (("torch", "torchvision", "skimage", "sklearn", "PIL"), "graphics cards and the research pickers"),
    "train": (("lightning", "tensorboard"), "training"),
    "plots": (("matplotlib",), "curves of evaluations"),
    "tiff": (("imagecodecs",), "compressed TIFF files"),
    "sam": (("transformers",), "the published Segment Anything and CryoTransformer networks"),
    "ctf": (("torch_ctf_estimation",), "validate3d --ctf estimate without CTFFIND"),
    "cluster": (("distributed", "dask_jobqueue", "cryptography"), "picking on a cluster"),
    "cryosparc": (("cryosparc",), "jobs in CryoSPARC, and reading .cs files in its compressed form"),
}
"""By extra: modules, and what they are for."""
SHIPPED_WEIGHTS = (
    *("general", "cryosegnet", "cryosegnet_sam", "cryotransformer", "cryoemmae", "segmentation-crf"),
    "consensus",
)
SAMPLE_PICKERS = ("blob", "general")
LITTLE_SPACE_BYTES = 1_000_000_000


def command(
    folder: Annotated[Path, typer.Argument(help="Folder in which runs will be written.")] = Path(),
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="slurm|local|tls://HOST:PORT",
            help="Check this cluster by one job, in place of this machine: how long it waits, what is there.",
        ),
    ] = None,
    wait: Annotated[
        str | None, typer.Option(metavar="TIME", help="For the job to start, such as 10m; then an error. [for ever]")
    ] = None,
    cluster_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML with [cluster]. [$CRYOPICK_CLUSTER_CONFIG, or the user's own]"),
    ] = None,
) -> None:
    """Check this installation: packages, accelerator, other programs, and whether picking works here.

    cryopick doctor

    Or check a cluster: does a job start, what is installed there, does it see the folder?
    """
    typer.echo(f"cryopick {__version__}, Python {platform.python_version()}, {platform.platform()}")
    if cluster is not None or wait is not None or cluster_config is not None:
        _check_cluster(folder, cluster, wait, cluster_config)
        return
    typer.echo(f"{_cores()} cores usable")
    checks = [_modules, _accelerator, _pickers]
    checks += [partial(_weights, name) for name in SHIPPED_WEIGHTS]
    checks += [partial(_writable, folder)]
    checks += [partial(_picks_a_sample, picker) for picker in SAMPLE_PICKERS]
    failures = sum(not _report(check) for check in checks)
    _optional()
    if failures:
        typer.echo(f"{failures} check{'' if failures == 1 else 's'} failed", err=True)
        raise typer.Exit(1)
    typer.echo("all well")


def _check_cluster(folder: Path, cluster: str | None, wait: str | None, config: Path | None) -> None:
    from cryopick.runs.on_cluster import cluster_request
    from cryopick.scale.cluster.place import LOCAL, SLURM
    from cryopick.workflows.check_cluster import check_cluster

    jobs = 1 if cluster in (SLURM, LOCAL) else None
    request = cluster_request(cluster, jobs=jobs, wait=wait, config=config)
    if request is None:
        return
    typer.echo(f"asking {cluster} for {'one job' if jobs else 'an answer'} ...", err=True)
    found = check_cluster(request, folder)
    typer.echo(f"ok      a worker was there after {found.joined_seconds:.1f} s")
    typer.echo(f"ok      host {found.host}: {found.versions}")
    typer.echo(f"ok      {found.processor}, {found.cores} cores usable; {found.device}")
    typer.echo(f"ok      it writes into {found.folder}, and that is seen here")
    typer.echo(f"ok      picking was loaded and answered after {found.answered_seconds:.1f} s")
    typer.echo("all well")


def _report(check: Callable[[], str]) -> bool:
    """Print what a check found; a broken package may raise anything, and the doctor is there to say so."""
    try:
        typer.echo(f"ok      {check()}")
    except Exception as error:
        kind = "" if isinstance(error, CryopickError) else f"{type(error).__name__}: "
        typer.echo(f"FAILED  {kind}{' '.join(str(error).split())}", err=True)
        return False
    return True


def _cores() -> int:
    from cryopick.scale.processes import usable_cores

    return usable_cores()


def _modules() -> str:
    versions = [f"{name} {getattr(import_module(name), '__version__', '')}".strip() for name in REQUIRED_MODULES]
    return ", ".join(versions)


def _accelerator() -> str:
    from cryopick.inference.device import chosen_device, cuda_devices

    count, reason, complaint = cuda_devices()
    if count:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(count)]
        for index in range(count):
            chosen_device(f"cuda:{index}")  # raises where it cannot compute
        return f"graphics card: {', '.join(names)}"
    if complaint:
        raise CryopickError(f"a graphics card is there but cannot be used: {complaint}; learned pickers run on the CPU")
    return f"no graphics card ({reason}); learned pickers run on the CPU"


def _pickers() -> str:
    from cryopick.pickers.registry import broken_plug_ins, list_pickers

    names = list_pickers()
    if broken := broken_plug_ins():
        raise CryopickError("; ".join(broken.values()))
    return f"pickers: {', '.join(names)}"


def _weights(name: str) -> str:
    from cryopick.io.weights import find_weights, load_checkpoint

    checkpoint = load_checkpoint(find_weights(name), as_arrays=True)
    return f"weights {name}: whole, {sum(tensor.size for tensor in checkpoint.tensors.values()):,} numbers"


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


def _picks_a_sample(picker: str) -> str:
    import numpy as np

    from cryopick.simulation.sample import DIAMETER_ANGSTROM, make_sample
    from cryopick.workflows.pick import pick

    ((micrograph, truth),) = make_sample(1)
    start = time.perf_counter()
    kept = pick(micrograph, picker, diameter=f"{DIAMETER_ANGSTROM:g}A").kept()
    seconds = time.perf_counter() - start
    apart_px = np.hypot(*(truth.xy_px[:, None] - kept.xy_px[None]).transpose(2, 0, 1))  # (n true, n picked)
    found = int((apart_px.min(axis=1, initial=np.inf) < truth.diameter_px / 4).sum())
    if found < 0.8 * len(truth):
        raise CryopickError(
            f"picker {picker} found {found} of {len(truth)} particles of a simple sample, expected nearly all"
        )
    return f"{picker} picked a sample: {found} of {len(truth)} particles in {seconds:.1f} s"


def _optional() -> None:
    for extra, (modules, purpose) in OPTIONAL_MODULES.items():
        for module in modules:
            try:
                import_module(module)
            except Exception as error:  # a package that is there and broken may raise anything
                reason = "" if isinstance(error, ModuleNotFoundError) else f" ({type(error).__name__}: {error})"
                typer.echo(f"absent  {module}{reason}, only for {purpose}: {install_hint(extra)}")
    typer.echo(f"RELION: {_relion()}")


def _relion() -> str:
    """Which is there, and what it lacks for `validate3d --engine relion`."""
    try:
        found = find_relion()
    except InputError as error:
        return str(error)
    if found is None:
        return "not on the PATH; validate3d --engine relion and comparisons need it"
    missing = [name for name in WHOLE_PATH if name not in found.programs]
    missing += ["mpirun"] if found.mpirun is None else []
    lacks = f"; without {', '.join(missing)}, which validate3d --engine relion needs" if missing else ""
    return f"{found.said} in {os.path.dirname(next(iter(found.programs.values())))}{lacks}"
