"""Find protein particles in cryo-EM micrographs."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# name -> module; imported on first use, so `import cryopick` stays instant
_PUBLIC = {
    "Micrograph": "cryopick.types",
    "Picks": "cryopick.types",
    "Length": "cryopick.geometry.units",
    "parse_length": "cryopick.geometry.units",
    "list_pickers": "cryopick.pickers.registry",
    "make_picker": "cryopick.pickers.registry",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  # keys of a literal dict of strings


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cryopick' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
