"""Every coordinate format, each with its reader and writer."""

from typing import Any

__all__ = ["read_picks", "write_picks"]


def __getattr__(name: str) -> Any:
    # on first use: the formats import this package's other modules
    if name in __all__:
        from cryopick.io.coordinates import formats

        return getattr(formats, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
