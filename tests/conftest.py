"""What holds for all tests."""

import os

# Other programs' variables say nothing of these tests: a batch job, an MPI launcher, a Conda environment, settings of
# Python or of terminals meant for something else. Tests that are about such a variable set it themselves.
_FOREIGN_PREFIXES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "OMPI_", "PMI_", "PMIX_", "MPI_", "PBS_", "LSB_", "LSF_")
_FOREIGN = (
    *("PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONSAFEPATH", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONDEVMODE"),
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TTY_COMPATIBLE", "TERM"),
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("CRYOPICK_WEIGHTS", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "MPLBACKEND", "POSIXLY_CORRECT"),
)
for _name in list(os.environ):
    if _name.startswith(_FOREIGN_PREFIXES) or _name in _FOREIGN:
        del os.environ[_name]
os.environ["PYTHONUTF8"] = "1"  # of the programs that tests start, whatever the locale
os.environ["MPLBACKEND"] = "agg"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers fill the cores; more threads in each, which torch starts by itself, would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from discs import folder_of_discs  # noqa: E402, F401  # after the environment is settled; fixtures of many folders
from drawn_micrographs import count_found, draw_particles  # noqa: E402, F401
from hypothesis import HealthCheck, settings  # noqa: E402
from slurm_cluster import slurm  # noqa: E402, F401

# A busy machine makes single examples slow; that says nothing about the code.
settings.register_profile("cryopick", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cryopick")
