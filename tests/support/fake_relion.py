"""Small programs in place of RELION's, on a PATH of their own: each fails, or works, as the real ones were seen to."""

from __future__ import annotations

import sys
from pathlib import Path

VERSIONS = {
    "3.1": "RELION version: 3.1.3 \nPrecision: BASE=double",
    "4": "RELION version: 4.0.1-commit-ex417f\nPrecision: BASE=double, CUDA-ACC=single",
    "5": "RELION version: 5.0.0-commit-90d239\nPrecision: BASE=double",
}
OPEN_MPI = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/"
MPICH = "HYDRA build details:\n    Version:                                 4.0.2"


def write_program(folder: Path, name: str, body: str) -> str:
    """A program in Python; `words` are its arguments."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable} -S\nimport os, sys, time\nwords = sys.argv[1:]\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def says_version(text: str, body: str = "") -> str:
    return f"if '--version' in words:\n    print({text!r}); sys.exit(0)\n{body}"


def install(folder: Path, *names: str, version: str = "3.1", body: str = "", mpirun: str | None = None) -> None:
    """RELION's programs in a folder for the PATH, all with the same body."""
    for name in names:
        write_program(folder, name, says_version(VERSIONS[version], body))
    if mpirun is not None:
        # what it is given runs once, as if it had one rank
        run = "os.execv(words[words.index('--') + 1] if '--' in words else next(w for w in words if os.path.isabs(w)),"
        run += " words[next(i for i, w in enumerate(words) if os.path.isabs(w)):])"
        write_program(folder, "mpirun", says_version(mpirun, run))
