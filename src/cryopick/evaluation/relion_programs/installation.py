"""Where RELION is, of which version, and how MPI starts its programs there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cryopick.errors import InputError

Version = Literal["3.1", "4", "5"]
Launcher = Literal["openmpi", "other"]
VERSION_SECONDS = 60.0
"""For a program to say its version; on a busy network disk it takes seconds."""
REFINE, REFINE_MPI = "relion_refine", "relion_refine_mpi"
WHOLE_PATH = (REFINE, REFINE_MPI, "relion_preprocess", "relion_mask_create", "relion_postprocess")
"""What a way from picks to a map needs."""
_SAID = re.compile(r"RELION version:\s*(\d+)\.(\d+)(\S*)")
_WHERE_TO_GET = "install RELION (3.1, 4 or 5) and put its programs on the PATH"


@dataclass(frozen=True, kw_only=True)
class Relion:
    """An installation.

    Attributes
    ----------
    version : by which options differ
    said : what the program says of its version, such as `3.1.3`
    programs : name -> path of those that were asked for and found
    mpirun : its path, or None
    launcher : whose mpirun it is; Open MPI has options of its own
    """

    version: Version
    said: str
    programs: Mapping[str, str]
    mpirun: str | None = None
    launcher: Launcher = "other"
    usable_cores: int = field(default=1)

    def path(self, program: str) -> str:
        """Of a program.

        Raises
        ------
        InputError
            If this installation lacks it.
        """
        if program not in self.programs:
            raise InputError(f"{program}: not on the PATH, though RELION {self.said} is; {_WHERE_TO_GET}")
        return self.programs[program]


def find_relion(programs: Sequence[str] = WHOLE_PATH, *, search_path: str | None = None) -> Relion | None:
    """RELION on the PATH; None where no program of those asked for is there.

    Parameters
    ----------
    programs : that are looked for; those that are missing are left out of the answer
    search_path : instead of the variable PATH

    Raises
    ------
    InputError
        If a program does not say which RELION it is of, or says one that is not known here.
    """
    found = {name: path for name in programs if (path := shutil.which(name, path=search_path)) is not None}
    if not found:
        return None
    first = next(iter(found.values()))
    version, said = version_of(first, _output_of(first, "--version"))
    mpirun = shutil.which("mpirun", path=search_path)
    launcher: Launcher = "other"
    if mpirun is not None and "open mpi" in _output_of(mpirun, "--version").lower():
        launcher = "openmpi"
    return Relion(
        version=version, said=said, programs=found, mpirun=mpirun, launcher=launcher, usable_cores=_usable_cores()
    )


def require_relion(programs: Sequence[str] = WHOLE_PATH, *, search_path: str | None = None) -> Relion:
    """RELION on the PATH, with all of these programs.

    Raises
    ------
    InputError
        If one is missing, naming it and what to do.
    """
    relion = find_relion(programs, search_path=search_path)
    missing = [name for name in programs if relion is None or name not in relion.programs]
    if relion is None or missing:
        raise InputError(
            f"{', '.join(missing)}: not found on the PATH; {_WHERE_TO_GET}, or choose another engine (the embedded one "
            "needs no other program)"
        )
    return relion


def version_of(program: str, text: str) -> tuple[Version, str]:
    """The version in what `--version` prints, and its whole number.

    Raises
    ------
    InputError
        If there is none, or none from 3.1 to 5.
    """
    match = _SAID.search(text)
    if match is None:
        said = " ".join(text.split())[:80] or "nothing"
        raise InputError(f"{program} --version: said {said!r}, expected RELION's version; is it RELION's program?")
    major, minor = int(match[1]), int(match[2])
    said = f"{match[1]}.{match[2]}{match[3]}"
    if (major, minor) == (3, 1):
        return "3.1", said
    if major in (4, 5):
        return ("4" if major == 4 else "5"), said
    raise InputError(f"{program}: is of RELION {said}; expected 3.1, 4 or 5, whose options are known here")


def mpi_command(relion: Relion, words: Sequence[str], *, ranks: int, is_root: bool | None = None) -> list[str]:
    """The command of a program whose name ends in `_mpi`, started with so many ranks.

    Parameters
    ----------
    words : the command without mpirun
    ranks : odd for refinements, which lead two half sets of equal size
    is_root : as of this process where None

    Raises
    ------
    InputError
        If there is no mpirun.
    """
    if relion.mpirun is None:
        raise InputError(
            "mpirun: not on the PATH, and RELION refines half sets through MPI only; install Open MPI or MPICH, or "
            "load the module that RELION was built with"
        )
    if is_root is None:
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    options: list[str] = []
    if relion.launcher == "openmpi":
        # side by side, each mpirun would bind its first rank to the first core
        options = ["--bind-to", "none"]
        options += ["--allow-run-as-root"] if is_root else []
        options += ["--oversubscribe"] if ranks > relion.usable_cores else []
    return [relion.mpirun, "-n", str(ranks), *options, *words]


def _output_of(program: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=VERSION_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{program}: cannot be run ({getattr(error, 'strerror', None) or 'no answer'})") from error
    return done.stdout + done.stderr


def _usable_cores() -> int:
    from cryopick.scale.processes import usable_cores

    return usable_cores()
