"""Every image format: micrographs in, `Micrograph` out."""

from typing import Any

__all__ = ["probe_image", "read_micrograph", "write_micrograph"]


def __getattr__(name: str) -> Any:
    # on first use: the readers import this package's other modules
    if name in __all__:
        from cryopick.io.images import micrographs

        return getattr(micrographs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
