"""RELION's programs: found, told what to do, kept within limits, and read, in one place for all of cryopick.

- `installation`: where RELION is, of which version, and how MPI starts there
- `commands`: the words of each program's command line, as pure functions
- `running`: one program as a stage of a project: logs, marker files, time limits, continuing
- `failures`: what went wrong, in one sentence
- `outputs`: what the programs write, read by label

RELION resolves every path from its project folder: all programs run there, and paths in commands are relative to it.
"""

from cryopick.evaluation.relion_programs.commands import (
    Computing,
    auto_refine,
    class_2d,
    continued,
    extract,
    initial_model,
    local_resolution,
    log_picker,
    mask_create,
    postprocess,
    reconstruct,
    resampled_map,
)
from cryopick.evaluation.relion_programs.failures import ProgramFailedError
from cryopick.evaluation.relion_programs.installation import (
    Relion,
    Version,
    find_relion,
    mpi_command,
    require_relion,
)
from cryopick.evaluation.relion_programs.markers import ABORT, ABORTED, FAILURE, SUCCESS, remove_markers
from cryopick.evaluation.relion_programs.outputs import (
    FinishedRefinement,
    Iteration,
    ModelTable,
    Postprocessing,
    finished_refinement,
    newest_iteration,
    read_model,
    read_postprocessing,
)
from cryopick.evaluation.relion_programs.running import Stage, StageRun, run_stage

__all__ = [
    "ABORT",
    "ABORTED",
    "FAILURE",
    "SUCCESS",
    "Computing",
    "FinishedRefinement",
    "Iteration",
    "ModelTable",
    "Postprocessing",
    "ProgramFailedError",
    "Relion",
    "Stage",
    "StageRun",
    "Version",
    "auto_refine",
    "class_2d",
    "continued",
    "extract",
    "find_relion",
    "finished_refinement",
    "initial_model",
    "local_resolution",
    "log_picker",
    "mask_create",
    "mpi_command",
    "newest_iteration",
    "postprocess",
    "read_model",
    "read_postprocessing",
    "reconstruct",
    "remove_markers",
    "require_relion",
    "resampled_map",
    "run_stage",
]
