"""What a measurement ran on, in words that go beside its numbers."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cryopick.inference.computing import processor_model
from cryopick.scale.processes import usable_cores

PACKAGES = ("cryopick", "numpy", "scipy", "opencv-python-headless", "torch")


@dataclass(frozen=True)
class Machine:
    """One machine and the software that mattered.

    Parameters
    ----------
    threads : what OMP_NUM_THREADS says, "not set" otherwise
    load : processes that wanted to run in the last minute, this one included; above `cores`, wall times are inflated
    """

    processor: str
    cores: int
    memory_gb: float | None
    system: str
    python: str
    threads: str
    load: float | None
    packages: tuple[str, ...]

    def __str__(self) -> str:
        memory = "" if self.memory_gb is None else f", {self.memory_gb:.0f} GB memory"
        load = "" if self.load is None else f"; load {self.load:.1f}"
        return (
            f"{self.processor}, {self.cores} usable cores{memory}; {self.system}; Python {self.python}; "
            f"OMP_NUM_THREADS {self.threads}{load}; {', '.join(self.packages)}"
        )


def describe_machine() -> Machine:
    """The machine that this process runs on."""
    packages = []
    for name in PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # another build of the same library, such as a conda package
            packages.append(f"{name} of unknown version")
    return Machine(
        processor=processor_model(),
        cores=usable_cores(),
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        threads=os.environ.get("OMP_NUM_THREADS", "not set"),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        packages=tuple(packages),
    )


def _memory_gb() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):  # not told by this system
        return None
