"""Find protein particles in cryo-EM micrographs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` imports on first use
    from cryopick.geometry.units import Length, parse_length
    from cryopick.io.checkpoint import load_checkpoint
    from cryopick.io.coordinates import read_picks, write_picks
    from cryopick.io.images import read_micrograph, write_micrograph
    from cryopick.io.inputs import find_micrographs
    from cryopick.pickers.registry import list_pickers, make_picker
    from cryopick.training.datasets import open_dataset
    from cryopick.types import Micrograph, Picks
    from cryopick.workflows.convert import convert
    from cryopick.workflows.evaluate import evaluate
    from cryopick.workflows.finetune import finetune
    from cryopick.workflows.inspect import inspect
    from cryopick.workflows.label import label
    from cryopick.workflows.pick import pick
    from cryopick.workflows.rethreshold import rethreshold
    from cryopick.workflows.simulate import simulate
    from cryopick.workflows.train import plan_training, train_picker

__version__ = "0.1.0"

# name -> module; imported on first use, so `import cryopick` stays instant
_PUBLIC = {
    "Micrograph": "cryopick.types",
    "Picks": "cryopick.types",
    "Length": "cryopick.geometry.units",
    "parse_length": "cryopick.geometry.units",
    "list_pickers": "cryopick.pickers.registry",
    "make_picker": "cryopick.pickers.registry",
    "pick": "cryopick.workflows.pick",
    "rethreshold": "cryopick.workflows.rethreshold",
    "evaluate": "cryopick.workflows.evaluate",
    "benchmark": "cryopick.workflows.benchmark",
    "convert": "cryopick.workflows.convert",
    "inspect": "cryopick.workflows.inspect",
    "simulate": "cryopick.workflows.simulate",
    "label": "cryopick.workflows.label",
    "plan_training": "cryopick.workflows.train",
    "train_picker": "cryopick.workflows.train",
    "finetune": "cryopick.workflows.finetune",
    "open_dataset": "cryopick.training.datasets",
    "load_checkpoint": "cryopick.io.checkpoint",
    "find_micrographs": "cryopick.io.inputs",
    "read_micrograph": "cryopick.io.images",
    "write_micrograph": "cryopick.io.images",
    "read_picks": "cryopick.io.coordinates",
    "read_labels": "cryopick.io.labels",
    "write_picks": "cryopick.io.coordinates",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  # keys of a literal dict of strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cryopick' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
