"""Which micrographs a user means."""

from typing import Any

__all__ = ["MicrographSource", "find_micrographs", "read_source"]


def __getattr__(name: str) -> Any:
    # on first use: the search imports this package's other modules
    if name in __all__:
        from cryopick.io.inputs import sources

        return getattr(sources, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
