"""Find protein particles in cryo-EM micrographs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cryopick.version import __version__

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` imports on first use
    from cryopick.data.datasets import open_dataset
    from cryopick.geometry.units import Length, parse_length
    from cryopick.io.coordinates.formats import read_picks, write_picks
    from cryopick.io.images.micrographs import read_micrograph, write_micrograph
    from cryopick.io.inputs.sources import find_micrographs
    from cryopick.io.weights import load_checkpoint
    from cryopick.pickers.registry import list_pickers, make_picker
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
    "open_dataset": "cryopick.data.datasets",
    "load_checkpoint": "cryopick.io.weights",
    "find_micrographs": "cryopick.io.inputs.sources",
    "read_micrograph": "cryopick.io.images.micrographs",
    "write_micrograph": "cryopick.io.images.micrographs",
    "read_picks": "cryopick.io.coordinates.formats",
    "read_labels": "cryopick.data.labels",
    "write_picks": "cryopick.io.coordinates.formats",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  # keys of a literal dict of strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cryopick' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
