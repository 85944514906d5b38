"""The names that `import cryopick` promises, and that the import itself stays light."""

from __future__ import annotations

import subprocess
import sys

import cryopick

PROMISED = {
    *("Length", "Micrograph", "Picks", "__version__", "list_pickers", "make_picker", "parse_length"),
    *("find_micrographs", "read_labels", "read_micrograph", "read_picks", "write_micrograph", "write_picks"),
    *("benchmark", "compare", "consensus", "convert", "evaluate", "inspect", "pick", "rethreshold", "simulate"),
    *("finetune", "label", "load_checkpoint", "open_dataset", "plan_training", "report", "train_picker", "watch"),
    *("Validation", "open_run", "validate3d"),
}


def test_the_public_names_are_these_and_each_can_be_used() -> None:
    assert set(cryopick.__all__) == PROMISED
    assert all(getattr(cryopick, name) is not None for name in PROMISED)


def test_importing_cryopick_loads_nothing_heavy_and_sets_up_no_logging() -> None:
    script = (
        "import sys, logging, cryopick\n"
        "assert not logging.getLogger().handlers\n"
        "print(sorted({'numpy', 'torch', 'scipy', 'cv2', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
