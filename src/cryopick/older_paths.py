"""Module paths of version 0.1 that have moved still lead to their names, and say so once.

Only the names of the package itself are promised; this is for scripts that imported modules by path. It is installed
by `import cryopick` and looks nothing up until such a path is asked for.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_ROOT = f"{__package__}."
MOVED = {
    "io.atomic": ("io.files.atomic",),
    "io.checkpoint": ("io.weights",),
    "io.labels": ("data.labels", "io.set_json"),
    "io.mrc": ("io.images.mrc",),
    "io.names": ("io.coordinates.names",),
    "io.poses": ("io.structures.poses",),
    "io.raster": ("io.images.raster",),
    "io.reading": ("io.files.reading",),
    "io.relion": ("io.coordinates.relion",),
    "io.structure": ("io.structures.structure",),
    "io.text": ("io.files.text",),
    "io.tiff": ("io.images.tiff",),
    "io.volume": ("io.structures.volume",),
    "pickers.dense": ("inference.dense", "inference.device"),
    "pickers.diameter": ("heatmap.diameter",),
    "simulation.proteins": ("simulation.specimens.proteins",),
    "simulation.specimen": ("simulation.specimens.specimen",),
    "training.datasets": ("data.datasets",),
    "training.general": ("pickers.general.training", "pickers.general.trainable"),
    "training.splits": ("data.splits",),
    "workflows.demo": ("simulation.sample",),
    "workflows.pick_settings": ("runs.settings",),
    "workflows.results": ("runs.results", "runs.threshold"),
    "workflows.run": ("runs.run",),
    "workflows.run_folder": ("runs.folder", "runs.record"),
    "workflows.settings": ("settings",),
    "workflows.workers": ("runs.workers", "scale.process_pool", "scale.processes"),
}
"""Below the package: the old path, and where its names are now."""


class _OlderPaths(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        return ModuleSpec(fullname, self) if fullname.removeprefix(_ROOT) in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        del spec

    def exec_module(self, module: ModuleType) -> None:
        homes = [_ROOT + home for home in MOVED[module.__name__.removeprefix(_ROOT)]]
        warnings.warn(f"{module.__name__} has moved to {' and '.join(homes)}", DeprecationWarning, stacklevel=2)

        def named(name: str) -> Any:
            for home in map(import_module, homes):
                if hasattr(home, name):
                    return getattr(home, name)
            raise AttributeError(f"{module.__name__} had no {name}, or it is gone; see {' and '.join(homes)}")

        module.__dict__["__getattr__"] = named


def install() -> None:
    """Let imports of old paths work in this process."""
    if not any(isinstance(finder, _OlderPaths) for finder in sys.meta_path):
        sys.meta_path.append(_OlderPaths())
